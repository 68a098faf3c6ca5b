"""The kinds of faults: where each is injected, what it does, and which fields of a rule it uses.

Promise: pure; `KINDS` is the only list of kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial

LAUNCH = "RunInstances"
"""The action by which machines are launched: the one that faults of machines belong to."""


class Site(StrEnum):
    """Where a fault is injected: before a call, into its response, or on a machine."""

    CALL = "call"
    RESPONSE = "response"
    MACHINE = "machine"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    `call` is the only action it is for. `takes` names the fields of a rule that it uses; `seconds`
    and `code` are their values when the rule does not give them. An error response has its code,
    `message` and HTTP `status`.
    """

    site: Site
    summary: str
    call: str = "*"
    takes: tuple[str, ...] = ()
    seconds: float | None = None
    code: str = ""
    message: str = ""
    status: int = 0
    at_launch_only: bool = False
    spot_only: bool = False


def _refusal(
    code: str,
    status: int,
    message: str,
    *,
    call: str = "*",
    site: Site = Site.CALL,
    summary: str = "",
) -> Kind:
    done = "done all the same" if site is Site.RESPONSE else "not done"
    summary = summary or f"{code}, {status}: {done}"
    return Kind(site, summary, call, ("code",), code=code, message=message, status=status)


_machine = partial(Kind, Site.MACHINE, call=LAUNCH)

_INTERNAL = ("InternalError", 500, "An internal error has occurred")

KINDS = {
    "throttle": _refusal("RequestLimitExceeded", 503, "Request limit exceeded."),
    "capacity": _refusal(
        "InsufficientInstanceCapacity",
        500,
        "There is no capacity for this instance type in this Availability Zone.",
        call=LAUNCH,
    ),
    "quota": _refusal(
        "VcpuLimitExceeded",
        400,
        "The account's limit of vCPUs allows no more instances of this family.",
        call=LAUNCH,
    ),
    "unauthorized": _refusal(
        "UnauthorizedOperation", 403, "You are not authorized to perform this operation."
    ),
    "missing": _refusal(
        "InvalidSubnetID.NotFound",
        400,
        "What the request names does not exist.",
        summary="what the call names is not there: `code`, 400; not done",
    ),
    "fail-before": _refusal(*_INTERNAL),
    "fail-after": _refusal(*_INTERNAL, site=Site.RESPONSE),
    "timeout-before": Kind(
        Site.CALL,
        "not done; the connection is held for `seconds`, then cut without a response",
        takes=("seconds",),
        seconds=1.0,
    ),
    "timeout-after": Kind(Site.RESPONSE, "the same, but done", takes=("seconds",), seconds=1.0),
    "partial-terminate": _refusal(
        *_INTERNAL,
        call="TerminateInstances",
        summary="half of two or more instances are ended, then InternalError, 500",
    ),
    "partial-launch": Kind(
        Site.CALL,
        "half of two or more instances are launched, as if there were capacity for no more",
        call=LAUNCH,
    ),
    "spent-token": _refusal(
        "IdempotentInstanceTerminated",
        400,
        "The client token belongs to an instance that was terminated",
        call=LAUNCH,
        summary="IdempotentInstanceTerminated as soon as the end of the token's instance has begun",
    ),
    "launch-dies": _machine(
        "200 and pending, and after `seconds` terminated with Server.InternalError",
        takes=("seconds", "code"),
        seconds=0.0,
        code="Server.InternalError",
        at_launch_only=True,
    ),
    "hidden": _machine("unknown to all calls for `seconds`", takes=("seconds",), seconds=10.0),
    "stale": _machine("described as it was `seconds` ago", takes=("seconds",), seconds=5.0),
    "slow-boot": _machine(
        "boots `seconds` later", takes=("seconds",), seconds=30.0, at_launch_only=True
    ),
    "never-boots": _machine("runs, and never boots", at_launch_only=True),
    "cloudinit-hangs": _machine(
        "what applies the user-data carries out its first command, and waits for ever",
        at_launch_only=True,
    ),
    "dies": _machine(
        "vanishes at a random moment within `seconds`: Server.InternalError",
        takes=("seconds", "after"),
        seconds=10.0,
    ),
    "no-network": _machine(
        "callbacks get no connection, for `seconds` or for ever", takes=("seconds", "after")
    ),
    "no-callback": _machine("the end is on the console and never called back"),
    "twice": _machine("each callback is sent twice"),
    "forged": _machine("before each callback a false one is sent with a wrong token"),
    "false-identity": _machine("its instance identity document names another instance"),
    "hangs": _machine(
        "hangs when it powers off, for `seconds` or until it is terminated", takes=("seconds",)
    ),
    "sticks": _machine(
        "stays shutting-down for `seconds`, or until its end is forced", takes=("seconds",)
    ),
    "spot-interruption": _machine(
        "a spot instance gets its notice, and is ended `seconds` later",
        takes=("seconds", "after"),
        seconds=120.0,
        spot_only=True,
    ),
}
