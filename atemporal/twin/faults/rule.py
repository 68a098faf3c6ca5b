"""A fault rule: which fault is injected, into which calls or machines, and how often.

Promise: pure; a rule that has been made can be carried out. A field that its kind does not use is
refused, never ignored.

Rules as JSON; all but `kind` may be left out:

    {"kind": "capacity", "match": {"instance_type": "c5.*", "capacity_type": "spot"}, "times": 3}
    {"kind": "throttle", "call": "Describe*", "probability": 0.5, "code": "SlowDown"}
    {"kind": "spot-interruption", "probability": 0.1, "after": 20, "seconds": 120}
    {"kind": "no-network", "match": {"instance": "i-0123456789abcdef0"}, "seconds": 60}

`call` is the name of an action, with the wild cards `*` and `?`. `match` is compared with the
instances that a call names or asks for; one of them must fit all of its patterns: `instance_type`,
`subnet`, `zone`, `capacity_type` (on-demand or spot; `market` is an alias), `token` (the client
token), `instance` (the id); wild cards too. `times` is how often the fault is injected at most,
`probability` how likely it is when the rule fits. `seconds` means what the kind's summary says;
`after` is how many seconds after the launch a machine's fault begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from atemporal.twin.faults.kind import KINDS, Kind, Site

INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")


@dataclass(frozen=True)
class Subject:
    """An instance that a call names, or that it asks for."""

    instance_type: str = ""
    subnet: str = ""
    zone: str = ""
    capacity_type: str = "on-demand"
    token: str = ""
    instance: str = ""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Frozen):
    """Patterns for a subject; one that is absent matches all."""

    instance_type: str | None = None
    subnet: str | None = None
    zone: str | None = None
    capacity_type: Annotated[
        str | None, Field(validation_alias=AliasChoices("capacity_type", "market"))
    ] = None
    token: str | None = None
    instance: str | None = None

    def fits(self, subjects: Iterable[Subject]) -> bool:
        """Whether one of the subjects fits; without any pattern no subject is needed."""
        wanted = self.model_dump(exclude_none=True)
        return not wanted or any(
            all(fnmatchcase(getattr(one, name), pattern) for name, pattern in wanted.items())
            for one in subjects
        )


class FaultRule(_Frozen):
    """When which fault is injected; see the module. `id` is given when the rule is added."""

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
        """The description of its kind."""
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
    def _can_be_carried_out(self) -> FaultRule:
        kind = self.is_a
        for name in ("seconds", "after", "code"):
            if name in self.model_fields_set and getattr(self, name) and name not in kind.takes:
                raise ValueError(f"{self.kind} does not use {name!r}")
        if not fnmatchcase(kind.call, self.call) and kind.call != "*":
            raise ValueError(f"{self.kind} is for {kind.call} only, not for {self.call!r}")
        if self.target:
            if not INSTANCE_ID.fullmatch(self.target):
                raise ValueError("for a machine that runs, name its whole id, such as i-0123abcd")
            if kind.at_launch_only:
                raise ValueError(f"{self.kind} is decided at the launch; no instance can be named")
        return self

    @property
    def duration_s(self) -> float | None:
        """The rule's seconds, or its kind's."""
        return self.is_a.seconds if self.seconds is None else self.seconds

    @property
    def error_code(self) -> str:
        """The rule's code, or its kind's."""
        return self.code or self.is_a.code
