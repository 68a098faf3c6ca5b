"""The whole system by docker-compose: what `docker-compose.yml` needs beside images.

The commands are in `__main__`, run by `make compose-up` and `make compose-down` with the system's own
Python: nothing here imports more than the standard library.
"""
