"""Private registries: what opens them, of this deployment.

Promise: a machine is given what opens the registry of its own job's image, and nothing else; it is told
that with its job, and neither user-data nor a log, an event or an answer of the API has it.
Mechanism: a file as docker's client writes it (`docker login` makes `~/.docker/config.json`; the form is
that of docs.docker.com/reference/cli/docker/login), read when the process starts. ECR needs none: a
machine asks with the role of its instance.
Failure: a file that can not be read, or an entry that holds no password, stops the process at its start.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atemporal.errors import Invalid
from atemporal.settings import PREFIX, Settings

VARIABLE = f"{PREFIX}REGISTRIES_FILE"
_ECR = re.compile(r"[0-9]{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_HUB = "docker.io"
_HUBS = {"index.docker.io", "registry-1.docker.io"}


@dataclass(frozen=True)
class Registries:
    """What opens which registry: base64 of USER:PASSWORD by the registry's host."""

    passes: Mapping[str, str] = field(default_factory=dict, repr=False)

    def opens(self, image: str) -> str | None:
        """What opens the registry of an image; None where nothing is known of it."""
        return self.passes.get(image.partition("/")[0])


NO_REGISTRIES = Registries()


def load(settings: Settings) -> Registries:
    """Read the file that the settings name.

    Raises:
        Invalid: it can not be read, or is not what docker's client writes.
    """
    if settings.registries_file is None:
        return NO_REGISTRIES
    try:
        text = Path(settings.registries_file).read_text(encoding="utf-8")
        return Registries(_passes(json.loads(text)))
    except (OSError, ValueError) as error:
        # A message of json's has no part of the text.
        raise Invalid({VARIABLE: f"{settings.registries_file}: {error}"}) from None


def _passes(config: Any) -> dict[str, str]:
    auths = config.get("auths") if isinstance(config, dict) else None
    if not isinstance(auths, dict):
        raise ValueError('has no object "auths"; write it with `docker login`')  # noqa: TRY004
    passes: dict[str, str] = {}
    for name, entry in auths.items():
        host = _host(name)
        if _ECR.fullmatch(host):
            raise ValueError(
                f"{host} is ECR: its passwords live for twelve hours, and machines get their own by "
                f"{PREFIX}INSTANCE_PROFILE; take the entry out (`docker logout {host}`)"
            )
        if host in passes:
            raise ValueError(f"{host} has two entries: one opens all images of a registry")
        passes[host] = _pass(name, entry)
    return passes


def _host(name: str) -> str:
    """The host as a normalised image names it: docker's client may write a URL."""
    host = name.rpartition("://")[2].partition("/")[0]
    return _HUB if host in _HUBS else host


def _pass(name: str, entry: Any) -> str:
    """Base64 of USER:PASSWORD.

    Raises:
        ValueError: there is none in it; the message repeats nothing of it.
    """
    entry = entry if isinstance(entry, dict) else {}
    user, password, given = (entry.get(one) for one in ("username", "password", "auth"))
    if isinstance(user, str) and isinstance(password, str) and user:
        return base64.b64encode(f"{user}:{password}".encode()).decode()
    try:
        plain = base64.b64decode(given if isinstance(given, str) else "", validate=True)
    except binascii.Error:
        plain = b""
    if not plain.partition(b":")[0] or b":" not in plain:
        raise ValueError(
            f"the entry of {name} has no user and password: where docker keeps them in a store of the "
            'system (credsStore), write {"auths": {HOST: {"username": ..., "password": ...}}} yourself'
        )
    return base64.b64encode(plain).decode()
