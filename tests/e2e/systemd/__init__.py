"""A real systemd as PID 1, in a container, as the machine that executes user-data."""
