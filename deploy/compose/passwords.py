"""The passwords of a compose project: made once, read by docker-compose, in no file of the repository.

Promise: `prepare` leaves an `.env` of mode 0600 with a password for each part, and never replaces one: a
database keeps the password that it was made with. RabbitMQ reads hashes of its passwords only, in
`.compose/definitions.json`, so that file may be read by RabbitMQ's own user in its container.
Failure: what was written before a crash is kept, and the next call adds what is missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

ENV, DEFINITIONS = ".env", ".compose/definitions.json"
_COMMITTED = Path(__file__).parents[1] / "rabbitmq" / "definitions.json"
_HEADER = "# Made by `make compose-up`. The passwords belong to the volumes: keep both or none.\n"


def _password() -> str:
    # Without a sign that means something in a URL or to docker-compose.
    return secrets.token_hex(32)


_VALUES: Mapping[str, Callable[[], str]] = {
    "COMPOSE_PROJECT_NAME": lambda: "atemporal",
    # Where EC2 is: a folder with settings.env and credentials.env; the profile starts the twin.
    "CLOUD": lambda: "./deploy/compose/twin",
    "COMPOSE_PROFILES": lambda: "twin",
    "CALLBACK_KEYS": lambda: f"k1:{_password()}",
    **{
        f"{part}_PASSWORD": _password
        for part in ("POSTGRES", "SETUP", "SCHEDULER", "LAUNCHER", "REAPER", "API", "GRAFANA")
    },
}


def prepare(root: Path) -> dict[str, str]:
    """Make what is missing in the project's folder; return the values of its `.env`."""
    env = root / ENV
    values = read(root)
    missing = {name: make() for name, make in _VALUES.items() if name not in values}
    if missing:
        new = not env.exists()
        descriptor = os.open(env, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            # One that somebody else has begun may be readable for all.
            os.fchmod(descriptor, 0o600)
            lines = "".join(f"{name}={value}\n" for name, value in missing.items())
            file.write((_HEADER if new else "\n") + lines)
    values |= missing
    definitions = root / DEFINITIONS
    definitions.parent.mkdir(mode=0o700, exist_ok=True)
    definitions.write_text(json.dumps(definitions_with(values), indent=2) + "\n")
    definitions.chmod(0o644)
    return values


def read(root: Path) -> dict[str, str]:
    """The values of the project's `.env`; none when there is no such file."""
    try:
        lines = (root / ENV).read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def definitions_with(values: Mapping[str, str]) -> dict[str, object]:
    """RabbitMQ's definitions of the repository, with hashes of these passwords."""
    definitions: dict[str, list[dict[str, object]]] = json.loads(_COMMITTED.read_text())
    for user in definitions["users"]:
        part = str(user["name"]).removeprefix("atemporal-").upper()
        user["password_hash"] = _hash(values[f"{part}_PASSWORD"])
        user["hashing_algorithm"] = "rabbit_password_hashing_sha256"
    return {**definitions}


def _hash(password: str) -> str:
    """RabbitMQ's form of a salted hash."""
    # The salt follows from the password, so the file stays the same.
    salt = hashlib.sha256(b"salt" + password.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
