"""The peers' own workers, each run by the interpreter of their environment."""
