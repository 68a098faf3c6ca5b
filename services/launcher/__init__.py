"""The launcher: turns a due job into an attempt, and the attempt into an instance."""
