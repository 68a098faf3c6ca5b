"""A machine's user-data: an attempt's job manifest, rendered for the OS family it boots.

The machines of a launch group share one user-data, with a manifest that names the group; each is
then told the manifest of its own attempt.

Promise: the bytes are a pure function of the attempt, its job and its launch, so that a repeated
RunInstances is the identical call; and what `check_fits` let through at submission is small enough
for EC2 at launch, whatever callback address the deployment uses then. A refusal says how much fits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final
from uuid import UUID

from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch
from atemporal.model.container import options
from cloud_config.flatcar import FLATCAR
from cloud_config.os_family import OsFamily

LIMIT: Final = 16_384
"""How many bytes of user-data EC2 takes, before it is base64-encoded for the call."""

OS_FAMILIES: Final[Mapping[str, OsFamily]] = {one.name: one for one in (FLATCAR,)}

_LONGEST_BASE = "https://" + "x" * 400
_LONGEST_TOKEN = "k" * 16 + "." + "f" * 64
_LONGEST_NUMBER = 10**9
_LONGEST_REF = AttemptRef(UUID(int=0), _LONGEST_NUMBER)
_LONGEST_LAUNCH = Launch(
    image_id="",
    instance_type="",
    callback_base=_LONGEST_BASE,
    key_id="",
    deadline_s=_LONGEST_NUMBER,
    pull_s=_LONGEST_NUMBER,
)
# `env=`, `=` and the NUL at the end; `arg=` and the NUL.
_VARIABLE_COST, _ARGUMENT_COST = 6, 5


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
    return _bounded(family.render(manifest(ref, spec, launch, token)))


def render_group(group_id: UUID, launch: Launch, token: str) -> bytes:
    """Return the user-data of every machine of a launch group.

    Raises:
        Invalid: the launch's OS family is unknown.
    """
    records = [
        f"group={group_id}",
        f"callback={launch.callback_base}/groups/{group_id}/machines",
        f"token={token}",
        f"deadline={launch.deadline_s}",
        f"boot={launch.boot_s}",
    ]
    return _bounded(os_family(launch.os_family).render(_joined(records)))


def check_fits(spec: JobSpec) -> None:
    """Refuse a job whose environment and command are too large for some OS family's user-data.

    Raises:
        Invalid: naming `env`, with what they take and what fits.
    """
    size = len(_longest(spec))
    for family in OS_FAMILIES.values():
        if size > _largest(family):
            needed, fits = len(_payload(spec)), room(spec, family)
            raise Invalid(
                {
                    "env": f"environment and command take {needed} bytes on the machine and {fits} "
                    f"fit; a variable takes {_VARIABLE_COST} more than its name and value, an "
                    f"argument {_ARGUMENT_COST} more: shorten them, or let the container fetch "
                    "what is large"
                }
            )


def room(spec: JobSpec, family: OsFamily) -> int:
    """How many bytes environment and command of such a job may take on a machine of the family."""
    rest = len(_longest(spec)) - len(_payload(spec))
    return max(_largest(family) - rest, 0)


@cache
def _largest(family: OsFamily) -> int:
    """How many bytes a manifest may have: the rendered size follows from that number alone."""
    # The first size that does not fit; how a family packs a manifest is its own affair.
    sizes = range(LIMIT + 1)
    return bisect_left(sizes, True, key=lambda n: len(family.render(b"x" * n)) > LIMIT) - 1


def _longest(spec: JobSpec) -> bytes:
    """The job's manifest where all that a deployment adds is as long as it can be."""
    return manifest(_LONGEST_REF, spec, _LONGEST_LAUNCH, _LONGEST_TOKEN)


def _payload(spec: JobSpec) -> bytes:
    records = [
        # docker takes the program of an entrypoint alone.
        *(f"arg={word}" for word in (*(spec.entrypoint or ())[1:], *(spec.command or ()))),
        *(f"env={name}={value}" for name, value in spec.env.items()),
    ]
    return _joined(records)


def manifest(
    ref: AttemptRef, spec: JobSpec, launch: Launch, token: str, *, auth: str | None = None
) -> bytes:
    """Return what an attempt's machine is told: records NAME=VALUE, each with a NUL at its end.

    `auth` opens the registry of its image. It has no place in a user-data.
    """
    records = [
        f"attempt={ref.id}",
        f"image={spec.image}",
        f"callback={launch.callback_base}/jobs/{ref.job_id}/callback",
        f"token={token}",
        f"timeout={spec.timeout_s}",
        f"deadline={launch.deadline_s}",
        f"pull={launch.pull_s}",
        f"capacity_type={launch.capacity_type}",
        *(f"port={port}" for port in spec.ports if spec.network == "bridge"),
        *(f"option={option}" for option in options(spec)),
        *([f"auth={auth}"] if auth else []),
    ]
    return _joined(records) + _payload(spec)


def _joined(records: Iterable[str]) -> bytes:
    return "".join(f"{record}\0" for record in records).encode()


def _bounded(user_data: bytes) -> bytes:
    if len(user_data) > LIMIT:
        raise Invalid({"env": f"the user-data has {len(user_data)} bytes, EC2 takes {LIMIT}"})
    return user_data
