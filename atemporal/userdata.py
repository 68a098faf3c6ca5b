"""A machine's user-data: an attempt's job manifest, rendered for the OS family it boots.

Promise: the bytes are a pure function of the attempt, its job and its launch, so that a repeated
RunInstances is the identical call; and what `check_fits` let through at submission is small enough
for EC2 at launch, whatever callback address the deployment uses then. The constant part takes less
than half of `LIMIT` and base64 a third on top of the rest: 5,400 bytes of environment and command
always fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch
from cloud_config.flatcar import FLATCAR
from cloud_config.os_family import OsFamily

LIMIT: Final = 16_384
"""How many bytes of user-data EC2 takes, before it is base64-encoded for the call."""

OS_FAMILIES: Final[Mapping[str, OsFamily]] = {one.name: one for one in (FLATCAR,)}

_LONGEST_BASE = "https://" + "x" * 400
_LONGEST_TOKEN = "k" * 16 + "." + "f" * 64
_LONGEST_NUMBER = 10**9


def os_family(name: str) -> OsFamily:
    """Return the OS family of that name.

    Raises:
        Invalid: there is none; the message names those there are.
    """
    if name not in OS_FAMILIES:
        known = ", ".join(sorted(OS_FAMILIES))
        raise Invalid({"os_family": f"{name!r} is unknown; known are: {known}"})
    return OS_FAMILIES[name]


def render(ref: AttemptRef, spec: JobSpec, launch: Launch, token: str) -> bytes:
    """Return the user-data of the attempt's machine.

    Raises:
        Invalid: the launch's OS family is unknown, or the result is larger than `LIMIT`.
    """
    family = os_family(launch.os_family)
    callback = f"{launch.callback_base}/jobs/{ref.job_id}/callback"
    return _bounded(
        family.render(
            _manifest(ref, spec, callback, token, launch.deadline_s, launch.capacity_type)
        )
    )


def check_fits(spec: JobSpec) -> None:
    """Refuse a job whose environment and command are too large for any OS family's user-data.

    Raises:
        Invalid: naming `env`, and by how many bytes it is too large.
    """
    ref = AttemptRef(UUID(int=0), _LONGEST_NUMBER)
    callback = f"{_LONGEST_BASE}/jobs/{ref.job_id}/callback"
    manifest = _manifest(ref, spec, callback, _LONGEST_TOKEN, _LONGEST_NUMBER, "on-demand")
    for family in OS_FAMILIES.values():
        _bounded(family.render(manifest))


def _manifest(
    ref: AttemptRef, spec: JobSpec, callback: str, token: str, deadline_s: int, capacity_type: str
) -> bytes:
    records = [
        f"attempt={ref.id}",
        f"image={spec.image}",
        f"callback={callback}",
        f"token={token}",
        f"timeout={spec.timeout_s}",
        f"deadline={deadline_s}",
        f"capacity_type={capacity_type}",
        *(f"port={port}" for port in spec.ports),
        *(f"arg={word}" for word in spec.command or ()),
        *(f"env={name}={value}" for name, value in spec.env.items()),
    ]
    return "".join(f"{record}\0" for record in records).encode()


def _bounded(user_data: bytes) -> bytes:
    excess = len(user_data) - LIMIT
    if excess > 0:
        # Job data travels as base64: four bytes for three.
        raise Invalid(
            {
                "env": f"environment and command are about {-(-excess * 3 // 4)} bytes too large "
                f"for a machine's user-data ({LIMIT} bytes in all); shorten them, or let the "
                "container fetch what is large"
            }
        )
    return user_data
