"""A machine's user-data: an attempt's job manifest, rendered for the OS family it boots.

The machines of a launch group share one user-data, with a manifest that names the group; each is
then told the manifest of its own attempt.

Promise: the bytes are a pure function of the attempt, its job and its launch, so that a repeated
RunInstances is the identical call; and what `check_fits` let through at submission is small enough
for EC2 at launch, whatever callback address and OS family the deployment uses then. A refusal says how
much fits.

Mechanism: a manifest travels as it is where that fits, so what most jobs need depends on no zlib. A
larger one is a gzip of two members: all but the environment and the command as it is, so that its length
is known at the submission, and these two compressed, which depends on the job alone. Another zlib can
pack a little worse: a part of the room is kept for that (docs/adr/0055).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final
from uuid import UUID

from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch
from cloud_config.cloud_init import AMAZON_LINUX, DEBIAN, UBUNTU
from cloud_config.flatcar import FLATCAR
from cloud_config.gzip_member import deflated, stored
from cloud_config.ignition import FCOS, FLATCAR_IGNITION
from cloud_config.os_family import OsFamily

LIMIT: Final = 16_384
"""How many bytes of user-data EC2 takes, before it is base64-encoded for the call."""

MOST_PAYLOAD: Final = 65_000
"""How many bytes environment and command may take unpacked: docker takes less than 64 KiB in a line of
an env file, and Linux 128 KiB in one argument of a program, which each variable is of docker's."""

OS_FAMILIES: Final[Mapping[str, OsFamily]] = {
    one.name: one for one in (FLATCAR, FLATCAR_IGNITION, FCOS, AMAZON_LINUX, DEBIAN, UBUNTU)
}

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
# zlib-ng and the compressors of processors pack some data up to a few percent worse.
_KEPT_PART = 32


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
    head, payload = _head(ref, spec, launch, token), _payload(spec)
    plain = family.render(head + payload)
    if len(plain) <= LIMIT:
        return plain
    return _bounded(family.render(stored(head) + deflated(payload), gzipped=True))


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
    head, payload = _longest_head(spec), _payload(spec)
    needed = len(payload)
    counted = (
        f"a variable takes {_VARIABLE_COST} more than its name and value, an argument "
        f"{_ARGUMENT_COST} more: shorten them, or let the container fetch what is large"
    )
    if needed > MOST_PAYLOAD:
        taken = f"environment and command take {needed} bytes on the machine"
        raise Invalid({"env": f"{taken} and {MOST_PAYLOAD} are the most; {counted}"})
    if len(head) + needed <= min(_largest(one) for one in OS_FAMILIES.values()):
        return
    packed = _packed_size(payload)
    fits = min(_largest(one, gzipped=True) for one in OS_FAMILIES.values()) - len(stored(head))
    if packed > fits:
        raise Invalid(
            {
                "env": f"environment and command take {packed} bytes compressed ({needed} as they "
                f"are) and {max(fits, 0)} fit; {counted}"
            }
        )


def room(spec: JobSpec, family: OsFamily) -> int:
    """How many bytes environment and command of such a job surely may take on the family's machines.

    It is as many as fit as they are; more fit where they can be compressed.
    """
    return max(_largest(family) - len(_longest_head(spec)), 0)


@cache
def _largest(family: OsFamily, *, gzipped: bool = False) -> int:
    """How many bytes a manifest, or its gzip, may have: the rendered size follows from that alone."""
    # The first size that does not fit; how a family writes a manifest is its own affair.
    sizes = range(LIMIT + 1)

    def too_large(size: int) -> bool:
        return len(family.render(b"x" * size, gzipped=gzipped)) > LIMIT

    return bisect_left(sizes, True, key=too_large) - 1


def _packed_size(payload: bytes) -> int:
    """How many bytes the compressed payload has at the launch, at most."""
    size = len(deflated(payload))
    return size + size // _KEPT_PART


def _longest_head(spec: JobSpec) -> bytes:
    """The head of the job's manifest where all that a deployment adds is as long as it can be."""
    return _head(_LONGEST_REF, spec, _LONGEST_LAUNCH, _LONGEST_TOKEN)


def _payload(spec: JobSpec) -> bytes:
    records = [
        *(f"arg={word}" for word in spec.command or ()),
        *(f"env={name}={value}" for name, value in spec.env.items()),
    ]
    return _joined(records)


def manifest(ref: AttemptRef, spec: JobSpec, launch: Launch, token: str) -> bytes:
    """Return what an attempt's machine is told: records NAME=VALUE, each with a NUL at its end."""
    return _head(ref, spec, launch, token) + _payload(spec)


def _head(ref: AttemptRef, spec: JobSpec, launch: Launch, token: str) -> bytes:
    """All but the environment and the command."""
    records = [
        f"attempt={ref.id}",
        f"image={spec.image}",
        f"callback={launch.callback_base}/jobs/{ref.job_id}/callback",
        f"token={token}",
        f"timeout={spec.timeout_s}",
        f"deadline={launch.deadline_s}",
        f"pull={launch.pull_s}",
        f"capacity_type={launch.capacity_type}",
        *(f"port={port}" for port in spec.ports),
    ]
    return _joined(records)


def _joined(records: Iterable[str]) -> bytes:
    return "".join(f"{record}\0" for record in records).encode()


def _bounded(user_data: bytes) -> bytes:
    if len(user_data) > LIMIT:
        raise Invalid({"env": f"the user-data has {len(user_data)} bytes, EC2 takes {LIMIT}"})
    return user_data
