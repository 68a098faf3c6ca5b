"""The infrastructure on AWS and what runs on it: `python -m deploy.production`, `make infra-up`, ...

Promise: a command says what it needs and what it will do, and refuses before it has done anything when
something is missing. What it runs it prints first, so that a person can do the same by hand.
"""
