"""What follows for one attempt from what is known of it: pure, so that every case can be read and
tested in one place.

Promise: another offering is chosen only for an attempt that was never asked for, or after EC2 refused
the call definitely. Without a sure answer nothing but the identical call may follow. A refusal of a
repeated call is believed only when a look showed nothing that an earlier call launched, and the look
came so late that EC2 would show it: its listings follow its launches with a delay. EC2's answer to the
repeated token should have said so, but it checks quotas, parameters and rights too, in an order that it
does not promise. And a refusal that what one attempt alone has may be the cause of, its labels or what
the settings said when it began, is believed of the others only when it comes without that too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from atemporal.cloud import (
    CloudError,
    Forbidden,
    Instance,
    NoCapacity,
    OverQuota,
    Throttled,
    TokenMismatch,
    TokenSpent,
    TooMany,
    Unauthorized,
    Unreachable,
)
from atemporal.errors import Refused
from atemporal.model import Launch
from atemporal.states import BlockedReason, Reason
from services.launcher.availability import Unavailable, summary
from services.launcher.offerings import Offering

_UNPROVEN = "an earlier call had no answer, and EC2 may not show yet what it launched"
REPEAT_S = 5.0
"""When the identical call is repeated after an answer that was not sure."""

WITHOUT_LABELS: Mapping[str, Any] = {"label_tags": ()}
"""The change of an intent of which no label becomes a tag."""

RefusalReason = Literal[Reason.LAUNCH_REFUSED, Reason.INSTANCE_LOST]


@dataclass(frozen=True)
class Launched:
    """The attempt has this instance, from this call or from an earlier one."""

    instance: Instance


@dataclass(frozen=True)
class TryNext:
    """This offering is to be asked for, at once."""

    offering: Offering


@dataclass(frozen=True)
class Exchange:
    """The same offering is to be asked for, at once, with these changes of the intent.

    `why` is what EC2 said against the intent as it is.
    """

    changes: Mapping[str, Any]
    why: str


@dataclass(frozen=True)
class Split:
    """The same is to be asked for by a call for one instance, at once: its answer says more."""


@dataclass(frozen=True)
class Blocked:
    """A sweep takes the attempt again in `for_s` seconds, with `start_over` where that is given."""

    reason: BlockedReason
    detail: str
    for_s: float
    start_over: Offering | None = None


@dataclass(frozen=True)
class Refuse:
    """No instance will ever come of it: the attempt ends."""

    reason: RefusalReason
    detail: str


@dataclass(frozen=True)
class Release:
    """The attempt goes to whoever has a token, or time, first."""


@dataclass(frozen=True)
class Leave:
    """Nothing is written: another process has the attempt, or a sweep when its lease is over."""


Decision = Launched | TryNext | Exchange | Split | Blocked | Refuse | Release | Leave


@dataclass(frozen=True)
class Facts:
    """What was looked up after a call, as far as its outcome asks for it.

    `unavailable` are those of the job's `offerings` that are not to be asked for now. `found` are the
    attempt's instances as EC2 shows them, those alive first, and of those that are gone what calls with
    this placement launched; or why EC2 could not be asked; empty where no earlier call can have
    launched one. `unproven_s`: so long to wait until such a look proves
    that there is none; 0 when it does. `may_ask_elsewhere`: a policy forbids this offering
    and perhaps no other. `size` is how many instances the call was for, `repeated` whether it had been
    sent before. `circuit_detail` is what EC2 refused this process with, `circuit_s` and `rate_limiter_s`
    are the seconds until it may call again.
    """

    offerings: Sequence[Offering]
    unavailable: Mapping[Offering, Unavailable] = field(default_factory=dict)
    found: Sequence[Instance] | CloudError = ()
    unproven_s: float = 0.0
    may_ask_elsewhere: bool = False
    size: int = 1
    repeated: bool = False
    circuit_detail: str = ""
    circuit_s: float = 0.0
    rate_limiter_s: float = 0.0


def decide(outcome: Instance | CloudError, facts: Facts) -> Decision:
    """Decide what follows a call."""
    match outcome:
        case Instance():
            return Launched(outcome)
        case OverQuota() | TooMany() if facts.size > 1:
            # "Between 1 and the quota": MaxCount is refused where one instance would not be.
            return launched_earlier(facts) or Split()
        case NoCapacity() | OverQuota() | TooMany():
            return launched_earlier(facts) or choose(facts.offerings, facts.unavailable)
        case Forbidden() if facts.may_ask_elsewhere:
            return launched_earlier(facts) or choose(facts.offerings, facts.unavailable)
        case Unauthorized():
            return Blocked(BlockedReason.AUTHORIZATION, facts.circuit_detail, facts.circuit_s)
        case Throttled() if facts.size > 1 and facts.repeated:
            # EC2's bucket of instances may be smaller than this call is large, and stay so.
            return launched_earlier(facts) or Split()
        case Throttled():
            return Blocked(BlockedReason.THROTTLE, outcome.detail, facts.rate_limiter_s)
        case TokenSpent() | TokenMismatch():
            return _launched_by_token(outcome, facts)
        case Refused() if facts.size > 1:
            # It proves nothing of a call for one: some limits are refused as a wrong parameter is.
            return launched_earlier(facts) or Split()
        case Refused():
            return launched_earlier(facts) or Refuse(Reason.LAUNCH_REFUSED, str(outcome))
        case _:
            # The outcome is not known: nothing but the identical call may follow.
            return Blocked(BlockedReason.ANSWER, outcome.detail, REPEAT_S)


def exchange(changes: Mapping[str, Any], why: str, facts: Facts) -> Decision:
    """Decide what follows a refusal that may concern nothing but what these changes replace."""
    return launched_earlier(facts) or Exchange(changes, why)


def other_tags(
    launch: Launch,
    labels: Collection[str],
    *,
    tags: Mapping[str, str],
    label_tags: Sequence[str],
) -> Mapping[str, Any]:
    """The changes to ask with after a refusal that a tag may be the cause of; none concerns all.

    First come the settings' `tags` and `label_tags`, where the intent has those of older settings. Then
    the `labels` that are tags of the call are left out.
    """
    if (launch.tags or {}) != tags:
        return {"tags": dict(tags), "label_tags": tuple(label_tags)}
    return WITHOUT_LABELS if labels else {}


def is_unsure(outcome: Instance | CloudError) -> bool:
    """Whether the call may have launched an instance that its answer does not name."""
    # Of a launch only the look-up before the call is unreachable: then there was none.
    definite = (
        *(Instance, Unauthorized, Forbidden, Throttled, NoCapacity, OverQuota, TooMany),
        Refused,
        Unreachable,
    )
    return not isinstance(outcome, definite)


def choose(
    offerings: Sequence[Offering], unavailable: Mapping[Offering, Unavailable]
) -> TryNext | Blocked:
    """The first offering that is available; with none, blocked until one is, to start over then."""
    for offering in offerings:
        if offering not in unavailable:
            return TryNext(offering)
    why = summary({offering: unavailable[offering] for offering in offerings})
    return Blocked(why.blocked_on, why.detail, why.for_s, start_over=offerings[0])


def launched_earlier(facts: Facts) -> Launched | Blocked | None:
    """What an earlier call launched and the refusal of this one did not speak of.

    Also when it is gone: the reaper says what became of it.
    """
    if isinstance(facts.found, CloudError):
        return Blocked(BlockedReason.ANSWER, facts.found.detail, REPEAT_S)
    # Of a call for many EC2 may show some at first: who has none then would be launched again.
    if len(facts.found) < facts.size and facts.unproven_s:
        return Blocked(BlockedReason.ANSWER, _UNPROVEN, facts.unproven_s)
    return Launched(facts.found[0]) if facts.found else None


def _launched_by_token(outcome: TokenSpent | TokenMismatch, facts: Facts) -> Decision:
    # A call for one says by its token alone that it has launched: nothing is waited for.
    proven = facts if facts.size > 1 else replace(facts, unproven_s=0.0)
    if isinstance(outcome, TokenSpent):
        return launched_earlier(proven) or Refuse(Reason.INSTANCE_LOST, str(outcome))
    return launched_earlier(proven) or Leave()
