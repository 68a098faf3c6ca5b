"""The scheduler: publishes jobs when they are due, and makes jobs of other systems' messages."""
