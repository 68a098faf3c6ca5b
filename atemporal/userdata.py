"""A machine's user-data: an attempt's job manifest, rendered for the OS family it boots.

A job is delivered *inline*, by its manifest in the user-data, or by *claim*: the user-data has a small
manifest that says where the machine is to ask, and it is told its attempt's own one there. The machines
of a launch group share one user-data, so each of them asks.

Promise: the bytes are a pure function of the attempt, its job and its launch, so that a repeated
RunInstances is the identical call; and what `check_fits` let through at submission is small enough
for EC2 at launch, whatever callback address and OS family the deployment uses then. A refusal says how
much fits. Of secrets nothing is ever in a user-data.

Mechanism: a manifest travels as it is where that fits, so what most jobs need depends on no zlib. A
larger one is a gzip of two members: all but the environment and the command as it is, so that its length
is known at the submission, and these two compressed, which depends on the job alone. Another zlib can
pack a little worse: a part of the room is kept for that (docs/adr/0055).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, Literal, NamedTuple
from uuid import UUID

from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch
from atemporal.model.container import options
from atemporal.model.secret import revealed
from atemporal.tokens import Purpose
from cloud_config import SECRET_RESOLVER
from cloud_config.cloud_init import AMAZON_LINUX, DEBIAN, UBUNTU
from cloud_config.flatcar import FLATCAR
from cloud_config.gzip_member import MOST_STORED, deflated, stored
from cloud_config.ignition import FCOS, FLATCAR_IGNITION
from cloud_config.os_family import OsFamily

LIMIT: Final = 16_384
"""How many bytes of user-data EC2 takes, before it is base64-encoded for the call."""

LARGEST: Final = 262_144
"""How many bytes command, environment and secrets may take together on the machine."""

Delivery = Literal["inline", "claim"]

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
        Invalid: the launch's OS family is unknown, the result is larger than `LIMIT`, or a job with
            secrets was to be launched inline.
    """
    if launch.delivery == "claim":
        return _asking(ref.id, f"jobs/{ref.job_id}/attempts/{ref.number}/machine", launch, token)
    if spec.secrets or spec.secret_refs:
        # A launcher of the release before made the intent, and knew of none.
        raise Invalid({"secrets": "are delivered by claim, and this launch is inline"})
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
    return _asking(str(group_id), f"groups/{group_id}/machines", launch, token)


def purpose_of(launch: Launch) -> Purpose:
    """Which token the user-data of an attempt that is launched alone has."""
    return "assignment" if launch.delivery == "claim" else "callback"


def delivery_of(spec: JobSpec) -> Delivery:
    """How a job that is launched alone gets onto its machine."""
    if spec.delivery == "auto":
        return "claim" if spec.secrets or spec.secret_refs or _too_large(spec) else "inline"
    return spec.delivery


def check_fits(spec: JobSpec) -> None:
    """Refuse a job that can not be delivered: too large, or not in the way that it asks for.

    Raises:
        Invalid: naming `env`, with what it takes and what fits, or `delivery`.
    """
    needed = len(_payload(spec))
    if spec.delivery == "inline" and (spec.secrets or spec.secret_refs):
        why = (
            "inline is in the user-data, which EC2 shows to whoever may look at the instance: a job "
            "with secrets is delivered by claim; leave it out, or give auto or claim"
        )
        raise Invalid({"delivery": why})
    if needed > LARGEST:
        raise Invalid({"env": _does_not_fit(f"{needed} bytes on the machine and {LARGEST} fit")})
    if spec.delivery == "inline" and (large := _too_large(spec)):
        size = f"{large.packed} bytes compressed ({needed} as they are) and {large.fits} fit"
        raise Invalid({"env": _does_not_fit(size, "leave out the delivery inline, ")})


def _does_not_fit(size: str, instead: str = "") -> str:
    return (
        f"environment, secrets and command take {size}; a variable takes {_VARIABLE_COST} more than its "
        f"name and value, an argument {_ARGUMENT_COST} more: {instead}shorten them, or let the "
        "container fetch what is large"
    )


class _TooLarge(NamedTuple):
    """What environment and command take compressed, in bytes, and what would fit."""

    packed: int
    fits: int


def _too_large(spec: JobSpec) -> _TooLarge | None:
    """Whether the user-data of some OS family has no room for the job's manifest."""
    head, payload = _longest_head(spec), _payload(spec)
    if len(head) + len(payload) <= min(_largest(one) for one in OS_FAMILIES.values()):
        return None
    packed = _packed_size(payload)
    if len(head) > MOST_STORED:
        return _TooLarge(packed, 0)
    fits = min(_largest(one, gzipped=True) for one in OS_FAMILIES.values()) - len(stored(head))
    return _TooLarge(packed, max(fits, 0)) if packed > fits else None


def room(spec: JobSpec, family: OsFamily) -> int:
    """How many bytes environment and command of such a job surely may take in the family's user-data.

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
        # docker takes the program of an entrypoint alone.
        *(f"arg={word}" for word in (*(spec.entrypoint or ())[1:], *(spec.command or ()))),
        *(f"env={name}={value}" for name, value in spec.env.items()),
        *(f"env={name}={value}" for name, value in revealed(spec.secrets).items()),
    ]
    return _joined(records)


def manifest(
    ref: AttemptRef, spec: JobSpec, launch: Launch, token: str, *, auth: str | None = None
) -> bytes:
    """Return what an attempt's machine is given: records NAME=VALUE, each with a NUL at its end.

    `auth` opens the registry of its image. It has no place in a user-data.
    """
    by_claim = [f"auth={auth}"] if auth else []
    if spec.secret_refs:
        by_claim += [f"resolver={SECRET_RESOLVER}"]
        by_claim += [f"resolver={name}={one}" for name, one in spec.secret_refs.items()]
    return _head(ref, spec, launch, token) + _joined(by_claim) + _payload(spec)


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
        *(f"port={port}" for port in spec.ports if spec.network == "bridge"),
        *(f"option={option}" for option in options(spec)),
    ]
    return _joined(records)


def _asking(name: str, path: str, launch: Launch, token: str) -> bytes:
    """The user-data of a machine that asks for its job; `name` says in its console for which."""
    records = [
        f"group={name}",
        f"callback={launch.callback_base}/{path}",
        f"token={token}",
        f"deadline={launch.deadline_s}",
        f"boot={launch.boot_s}",
    ]
    return _bounded(os_family(launch.os_family).render(_joined(records)))


def _joined(records: Iterable[str]) -> bytes:
    return "".join(f"{record}\0" for record in records).encode()


def _bounded(user_data: bytes) -> bytes:
    if len(user_data) > LIMIT:
        raise Invalid({"env": f"the user-data has {len(user_data)} bytes, EC2 takes {LIMIT}"})
    return user_data
