"""What stands before and behind every call: limits, faults, the log of calls.

Promise: `Interceptor.handle` is the one way to the actions, and no action knows of it. For each
call, in this order: the limits let it through, a fault may be injected before anything is done, it
is carried out, a fault may be injected into its response, it is logged. An error response that EC2
itself would give is never replaced by a fault.

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

from atemporal.twin.ec2 import api, launching
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Action, Parameters, Response
from atemporal.twin.ec2.limits import Limits
from atemporal.twin.ec2.wire import ApiError
from atemporal.twin.faults.active_rules import ActiveRules
from atemporal.twin.faults.kind import Site
from atemporal.twin.faults.plan import subject
from atemporal.twin.faults.rule import FaultRule, Subject

KEPT_CALLS = 10_000

# An action that the twin does not have is limited and logged as any other, and then refused.
_UNKNOWN = Action(lambda _account, _parameters: {})


class Severed(Exception):
    """A call gets no response: its connection is held for so many seconds, and cut."""

    def __init__(self, held_s: float) -> None:
        self.held_s = held_s
        super().__init__(f"held for {held_s:g} s and cut")


@dataclass
class Call:
    """One call in the log. `code` is OK, EC2's error code, or Severed; `instances` are those that it
    named or launched, whether or not its caller knows; `fault` is the kind that was injected.
    """

    at: float
    action: str
    token: str
    instances: list[str]
    code: str = "OK"
    fault: str | None = None
    rule: str | None = None


class Interceptor:
    """The calls of a twin, as clients see them; without `limits` there are none."""

    def __init__(self, account: Account, rules: ActiveRules, limits: Limits | None) -> None:
        self._account = account
        self._rules = rules
        self._limits = limits
        self._log: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._lock = threading.Lock()

    def handle(self, name: str, parameters: Parameters) -> Response:
        """Carry out one request, if nothing comes in between.

        Raises:
            ApiError: EC2 would refuse it, or a fault has it refused.
            Severed: a fault has it get no response.
        """
        action = api.ACTIONS.get(name, _UNKNOWN)
        token = str(parameters.get("ClientToken", ""))
        call = Call(time.time(), name, token, action.named(parameters))
        try:
            response = self._carry_out(call, action, parameters)
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
        return response

    def recent(self) -> list[dict[str, Any]]:
        """The last calls, oldest first."""
        with self._lock:
            return [asdict(call) for call in self._log]

    def _carry_out(self, call: Call, action: Action, parameters: Parameters) -> Response:
        if self._limits is not None:
            self._limits.take(call.action, action, parameters)
        subjects = self._subjects(call, action, parameters) if self._rules.rules() else []

        def possible(kind: str) -> bool:
            if kind == "partial-terminate":
                return len(set(call.instances)) > 1
            if kind == "partial-launch":
                earlier = _or_none(lambda: launching.earlier_launch(self._account, parameters))
                return earlier is None and launching.most(parameters) > 1
            return kind != "spent-token" or self._is_ending(parameters)

        if rule := self._rules.take(Site.CALL, call.action, subjects, possible):
            if rule.kind == "partial-terminate":
                some = list(dict.fromkeys(call.instances))
                some = some[: math.ceil(len(some) / 2)]
                api.call(self._account, call.action, {**parameters, action.ids: some})
            if rule.kind != "partial-launch":
                raise self._inject(call, rule)
            parameters[launching.GRANTED] = math.ceil(launching.most(parameters) / 2)
            self._note(call, rule)
        response = api.call(self._account, call.action, parameters)
        if action.launches:
            call.instances = [one["instanceId"] for one in response["instancesSet"]]
        if rule := self._rules.take(Site.RESPONSE, call.action, subjects):
            raise self._inject(call, rule)
        return response

    def _inject(self, call: Call, rule: FaultRule) -> Exception:
        """Record the fault; return the exception that carries it out."""
        self._note(call, rule)
        if not rule.is_a.status:
            return Severed(rule.duration_s or 0.0)
        return ApiError(rule.error_code, rule.is_a.message, rule.is_a.status)

    def _note(self, call: Call, rule: FaultRule) -> None:
        call.fault, call.rule = rule.kind, rule.id
        named = " ".join([call.token, *call.instances]).strip()
        self._rules.journal.add(rule.kind, rule.id, call=call.action, instance=named)

    def _subjects(self, call: Call, action: Action, parameters: Parameters) -> list[Subject]:
        if action.launches:
            return [_requested(parameters, self._account.region)]
        state = self._account.state
        named = (state.get(one) for one in call.instances)
        return [subject(state, one) for one in named if one is not None]

    def _is_ending(self, parameters: Parameters) -> bool:
        """Whether the instances that a client token has launched are being ended."""
        earlier = _or_none(lambda: launching.earlier_launch(self._account, parameters))
        if earlier is None:
            return False
        now = [self._account.state.get(one.id) for one in earlier.instances]
        return any(one is not None and one.over for one in now)


def _requested(parameters: Parameters, region: str) -> Subject:
    """What a launch asks for, as fault rules see it; the action itself refuses nonsense."""
    zoned = _or_none(lambda: launching.zone_of(parameters, region))
    options = parameters.get("InstanceMarketOptions")
    spot = isinstance(options, dict) and options.get("MarketType") == "spot"
    return Subject(
        instance_type=str(parameters.get("InstanceType", "")),
        subnet=str(parameters.get("SubnetId", "")),
        zone=zoned[0] if zoned else "",
        capacity_type="spot" if spot else "on-demand",
        token=str(parameters.get("ClientToken", "")),
    )


def _or_none(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except ApiError:
        return None
