"""What can be asked to go wrong: the kinds of faults, and a rule that says when one strikes.

Promise: pure; a rule that has been made is one that can be carried out: a field that its kind has no
use for is refused, never ignored.

Rules as JSON; all but `kind` may be left out:

    {"kind": "capacity", "match": {"instance_type": "c5.*", "market": "spot"}, "times": 3}
    {"kind": "throttle", "call": "Describe*", "probability": 0.5, "code": "SlowDown"}
    {"kind": "spot-interruption", "probability": 0.1, "after": 20, "seconds": 120}
    {"kind": "no-network", "match": {"instance": "i-0123456789abcdef0"}, "seconds": 60}

`call` is a call's name, with the wild cards `*` and `?`. `match` is compared with the instances that a
call is about, one of which must fit in all that is named: `instance_type`, `subnet`, `zone`, `market`
(on-demand or spot), `token` (the client token), `instance` (the id); wild cards too. `times` bounds
how often the rule strikes, `probability` how likely it does when it could. What `seconds` means is
said with each kind below; `after` is how many seconds after the launch a machine's fault begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CALLS = (
    *("RunInstances", "TerminateInstances", "CreateTags", "DescribeInstances"),
    *("DescribeInstanceStatus", "DescribeInstanceAttribute", "DescribeImages", "GetConsoleOutput"),
)
"""The calls that the twin has."""

INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")


class Site(StrEnum):
    """Where a fault strikes."""

    CALL = "call"
    ANSWER = "answer"
    MACHINE = "machine"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    `call` is the only call it is for. `takes` names the fields of a rule that it has a use for, and
    `seconds` and `code` are what these are when the rule does not say.
    """

    site: Site
    about: str
    call: str = "*"
    takes: tuple[str, ...] = ()
    seconds: float | None = None
    code: str = ""
    at_launch_only: bool = False
    spot_only: bool = False


def _call(about: str, code: str, call: str = "*") -> Kind:
    return Kind(Site.CALL, about, call, ("code",), code=code)


def _machine(
    about: str,
    *takes: str,
    seconds: float | None = None,
    code: str = "",
    at_launch_only: bool = False,
    spot_only: bool = False,
) -> Kind:
    call = "RunInstances"
    return Kind(Site.MACHINE, about, call, takes, seconds, code, at_launch_only, spot_only)


KINDS = {
    "throttle": _call("RequestLimitExceeded, 503: not done", "RequestLimitExceeded"),
    "capacity": _call(
        "InsufficientInstanceCapacity, 500: not done",
        "InsufficientInstanceCapacity",
        "RunInstances",
    ),
    "quota": _call("VcpuLimitExceeded, 400: not done", "VcpuLimitExceeded", "RunInstances"),
    "unauthorized": _call("UnauthorizedOperation, 403: not done", "UnauthorizedOperation"),
    "fail-before": _call("InternalError, 500: not done", "InternalError"),
    "fail-after": Kind(
        Site.ANSWER, "InternalError, 500: and done", takes=("code",), code="InternalError"
    ),
    "timeout-before": Kind(
        Site.CALL,
        "not done; the connection is held for so many seconds, then cut without an answer",
        takes=("seconds",),
        seconds=1.0,
    ),
    "timeout-after": Kind(Site.ANSWER, "the same, but done", takes=("seconds",), seconds=1.0),
    "partial-terminate": _call(
        "half of two or more instances are ended, then InternalError, 500",
        "InternalError",
        "TerminateInstances",
    ),
    "spent-token": _call(
        "IdempotentInstanceTerminated already when the end of the token's instance has only begun",
        "IdempotentInstanceTerminated",
        "RunInstances",
    ),
    "launch-dies": _machine(
        "200 and pending, and after so many seconds terminated with Server.InternalError",
        *("seconds", "code"),
        seconds=0.0,
        code="Server.InternalError",
        at_launch_only=True,
    ),
    "hidden": _machine("unknown to all calls for so many seconds", "seconds", seconds=10.0),
    "stale": _machine("described as it was so many seconds ago", "seconds", seconds=5.0),
    "slow-boot": _machine(
        "boots so many seconds later", "seconds", seconds=30.0, at_launch_only=True
    ),
    "never-boots": _machine("runs, and never boots", at_launch_only=True),
    "dies": _machine(
        "vanishes at a random moment within so many seconds: Server.InternalError",
        *("seconds", "after"),
        seconds=10.0,
    ),
    "no-network": _machine(
        "callbacks get no connection, for so many seconds or for ever", "seconds", "after"
    ),
    "no-callback": _machine("the end is on the console and never called back"),
    "twice": _machine("each callback is sent twice"),
    "forged": _machine("before each callback a false one is sent with a wrong token"),
    "hangs": _machine(
        "hangs when it powers off, as a kernel may, for so many seconds or until it is terminated",
        "seconds",
    ),
    "spot-interruption": _machine(
        "a spot instance gets its notice and so many seconds later is ended",
        *("seconds", "after"),
        seconds=120.0,
        spot_only=True,
    ),
}


@dataclass(frozen=True)
class Subject:
    """An instance that a call is about, be it launched or only asked for."""

    instance_type: str = ""
    subnet: str = ""
    zone: str = ""
    market: str = "on-demand"
    token: str = ""
    instance: str = ""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Frozen):
    """Patterns for a subject; one that is absent matches all."""

    instance_type: str | None = None
    subnet: str | None = None
    zone: str | None = None
    market: str | None = None
    token: str | None = None
    instance: str | None = None

    def fits(self, subjects: Iterable[Subject]) -> bool:
        """Whether one of the subjects fits; without any pattern even none does."""
        wanted = self.model_dump(exclude_none=True)
        return not wanted or any(
            all(fnmatchcase(getattr(one, name), pattern) for name, pattern in wanted.items())
            for one in subjects
        )


class Rule(_Frozen):
    """When which fault strikes; see the module. `id` is given when the rule is added."""

    kind: str
    call: str = "*"
    match: Match = Match()
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    times: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    after: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    code: Annotated[str, Field(pattern=r"^[A-Za-z.]{1,100}$")] | None = None
    id: str = ""

    @property
    def is_a(self) -> Kind:
        """What there is to know about its kind."""
        return KINDS[self.kind]

    @property
    def target(self) -> str | None:
        """The one running machine that it is for; None: it is for calls, or for launches."""
        named = self.match.instance if self.is_a.site is Site.MACHINE else None
        return named or None

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
        return kind

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> Rule:
        kind = self.is_a
        for name in ("seconds", "after", "code"):
            if name in self.model_fields_set and getattr(self, name) and name not in kind.takes:
                raise ValueError(f"{self.kind} has no use for {name!r}")
        if not any(fnmatchcase(call, self.call) for call in CALLS):
            raise ValueError(f"the twin has no call {self.call!r}; it has {', '.join(CALLS)}")
        if not fnmatchcase(kind.call, self.call) and kind.call != "*":
            raise ValueError(f"{self.kind} is for {kind.call} only, not for {self.call!r}")
        if self.target:
            if not INSTANCE_ID.fullmatch(self.target):
                raise ValueError("for a machine that runs, name its whole id, such as i-0123abcd")
            if kind.at_launch_only:
                raise ValueError(f"{self.kind} is decided at the launch; no instance can be named")
        return self

    @property
    def lasting_s(self) -> float | None:
        """The rule's seconds, or its kind's."""
        return self.is_a.seconds if self.seconds is None else self.seconds

    @property
    def with_code(self) -> str:
        """The rule's code, or its kind's."""
        return self.code or self.is_a.code
