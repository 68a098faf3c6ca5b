"""The scheduler: turns time into events, and other systems' messages into jobs."""
