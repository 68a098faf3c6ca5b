"""What stands before and behind every call: limits, faults, the log of calls.

Promise: `Gate.answer` is the one way to the calls, and no call knows of it. A call's life: the
limits admit it, a rule may strike it before anything is done, it is carried out, a rule may strike
its answer, it is logged. Calls that the twin refuses by itself are struck by no rule afterwards: an
error that EC2 owes its caller is not replaced.

The log is in memory, of the last calls only, and holds no user-data.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from atemporal.twin.books import Books
from atemporal.twin.calls import Calls
from atemporal.twin.fate import subject
from atemporal.twin.faults import Faults
from atemporal.twin.launching import earlier_launch, zone_of
from atemporal.twin.limits import Limits
from atemporal.twin.rule import Rule, Site, Subject
from atemporal.twin.wire import ApiError

KEPT_CALLS = 10_000

# Code is the rule's; what EC2 says with it, and the HTTP status that it comes with.
_FAILURES = {
    "throttle": ("Request limit exceeded.", 503),
    "capacity": ("There is no capacity for this instance type in this Availability Zone.", 500),
    "quota": ("The account's limit of vCPUs allows no more instances of this family.", 400),
    "unauthorized": ("You are not authorized to perform this operation.", 403),
    "fail-before": ("An internal error has occurred", 500),
    "fail-after": ("An internal error has occurred", 500),
    "partial-terminate": ("An internal error has occurred", 500),
    "spent-token": ("The client token belongs to an instance that was terminated", 400),
}


class Severed(Exception):
    """A call is not to be answered: its connection is held so many seconds, and cut."""

    def __init__(self, held_s: float) -> None:
        self.held_s = held_s
        super().__init__(f"held for {held_s:g} s and cut")


@dataclass
class Call:
    """One call in the log. `code` is OK, EC2's error code, or Severed; ids are those that it named
    or launched, whether or not its caller has heard of them; `fault` is the kind that struck it.
    """

    at: float
    action: str
    token: str
    instances: list[str]
    code: str = "OK"
    fault: str | None = None
    rule: str | None = None


class Gate:
    """The calls of a twin, as clients meet them."""

    def __init__(
        self, calls: Calls, books: Books, region: str, faults: Faults, limits: Limits | None
    ) -> None:
        self._calls = calls
        self._books = books
        self._region = region
        self._faults = faults
        self._limits = limits
        self._log: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._lock = threading.Lock()

    def answer(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request, if nothing comes in between.

        Raises:
            ApiError: EC2 would refuse it, or a rule has it refused.
            Severed: a rule has it not answered.
        """
        ids = _ids(parameters)
        call = Call(time.time(), action, str(parameters.get("ClientToken", "")), ids)
        try:
            answer = self._answer(call, parameters)
        except ApiError as error:
            call.code = error.code
            raise
        except Severed:
            call.code = "Severed"
            raise
        except BaseException:
            call.code = "InternalError"
            raise
        finally:
            with self._lock:
                self._log.append(call)
        return answer

    def recent(self) -> list[dict[str, Any]]:
        """The last calls, oldest first."""
        with self._lock:
            return [asdict(call) for call in self._log]

    def _answer(self, call: Call, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._limits is not None:
            self._limits.admit(call.action, parameters)
        subjects = self._subjects(call, parameters) if self._faults.rules() else []

        def plausible(kind: str) -> bool:
            if kind == "partial-terminate":
                return len(set(call.instances)) > 1
            return kind != "spent-token" or self._is_ending(parameters)

        if rule := self._faults.take(Site.CALL, call.action, subjects, plausible):
            if rule.kind == "partial-terminate":
                some = list(dict.fromkeys(call.instances))
                some = some[: math.ceil(len(some) / 2)]
                self._calls.answer(call.action, {**parameters, "InstanceId": some})
            raise self._struck(call, rule)
        answer = self._calls.answer(call.action, parameters)
        if call.action == "RunInstances":
            call.instances = [one["instanceId"] for one in answer["instancesSet"]]
        if rule := self._faults.take(Site.ANSWER, call.action, subjects):
            raise self._struck(call, rule)
        return answer

    def _struck(self, call: Call, rule: Rule) -> Exception:
        call.fault, call.rule = rule.kind, rule.id
        named = " ".join([call.token, *call.instances]).strip()
        self._faults.journal.add(rule.kind, rule.id, call=call.action, instance=named)
        if rule.kind not in _FAILURES:
            return Severed(rule.lasting_s or 0.0)
        message, status = _FAILURES[rule.kind]
        return ApiError(rule.with_code, message, status)

    def _subjects(self, call: Call, parameters: dict[str, Any]) -> list[Subject]:
        if call.action == "RunInstances":
            return [_asked_for(parameters, self._region)]
        named = (self._books.get(one) for one in call.instances)
        return [subject(self._books, one) for one in named if one is not None]

    def _is_ending(self, parameters: dict[str, Any]) -> bool:
        """Whether the instances that a client token has launched are being ended."""
        earlier = _or_none(lambda: earlier_launch(parameters, self._books, self._region))
        if earlier is None:
            return False
        now = [self._books.get(one.id) for one in earlier.instances]
        return any(one is not None and one.over for one in now)


def _asked_for(parameters: dict[str, Any], region: str) -> Subject:
    """What RunInstances asks for, as rules see it; nonsense is for the call itself to refuse."""
    zoned = _or_none(lambda: zone_of(parameters, region))
    market = parameters.get("InstanceMarketOptions")
    spot = isinstance(market, dict) and market.get("MarketType") == "spot"
    return Subject(
        instance_type=str(parameters.get("InstanceType", "")),
        subnet=str(parameters.get("SubnetId", "")),
        zone=zoned[0] if zoned else "",
        market="spot" if spot else "on-demand",
        token=str(parameters.get("ClientToken", "")),
    )


def _or_none(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except ApiError:
        return None


def _ids(parameters: dict[str, Any]) -> list[str]:
    for name in ("InstanceId", "ResourceId"):
        named = parameters.get(name)
        if named:
            return [str(one) for one in named] if isinstance(named, list) else [str(named)]
    return []
