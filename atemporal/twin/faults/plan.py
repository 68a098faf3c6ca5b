"""The fault plan: which faults each machine gets, and what that means for the twin.

Promise: a machine's faults are planned at its launch, or when a rule names it, and are on disk from
then on (see `fault`). Only here a rule becomes a fault of a machine. The host asks how long a
machine is pending, when it boots and how it is ended; the API asks what it may show of an instance;
the metadata service asks for the interruption notice. Faults on the machine (a hang, and what its
`curl` does) are read there, from its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from atemporal.errors import Conflict, Invalid, NotFound
from atemporal.twin.faults import fault
from atemporal.twin.faults.active_rules import ActiveRules
from atemporal.twin.faults.fault import Fault
from atemporal.twin.faults.rule import FaultRule, Subject
from atemporal.twin.state import STOPPED, Instance, State

NO_FAULTS: dict[str, Fault] = {}


@dataclass(frozen=True)
class Ending:
    """An instance's planned end; an `orderly` one lets the machine shut down first."""

    at: float
    code: str
    message: str
    orderly: bool
    fault: Fault


class FaultPlan:
    """The planned faults of all instances."""

    def __init__(self, state: State, rules: ActiveRules, clock: Callable[[], float]) -> None:
        self._state = state
        self._rules = rules
        self._clock = clock
        self._planned: dict[str, dict[str, Fault]] = {}
        for instance in state.instances():
            if found := fault.read(state.directory(instance.id)):
                self._remember(instance.id, found)

    def launched(self, instance: Instance) -> None:
        """Plan the faults of a new instance."""
        rules = self._rules.for_launch(subject(self._state, instance))
        if rules:
            since = instance.launched_at
            self._save(
                instance, {rule.kind: _fault(rule, since, number) for rule, number in rules}
            )

    def inject(self, rule: FaultRule, number: float) -> str:
        """Plan a fault of the instance that a rule names, from now on; return the instance's id.

        Raises:
            NotFound, Conflict, Invalid: there is none, it is over, or this can not happen to it.
        """
        with self._state.lock:
            instance = self._state.get(rule.target or "")
            if instance is None:
                raise NotFound(f"there is no instance {rule.target}")
            if instance.over or instance.state == STOPPED:
                raise Conflict(f"{instance.id} is {instance.state}")
            if rule.is_a.spot_only and instance.capacity_type != "spot":
                raise Invalid({"match": f"{instance.id} is no spot instance"})
            planned = _fault(rule, self._clock(), number)
            self._save(instance, {**self._of(instance), rule.kind: planned})
        return instance.id

    def pending_s(self, instance: Instance, usual_s: float) -> float | None:
        """How long it is pending; None: until something ends it."""
        return None if "launch-dies" in self._of(instance) else usual_s

    def boot_s(self, instance: Instance, usual_s: float) -> float | None:
        """How long it takes from running to its user-data; None: it never boots."""
        planned = self._of(instance)
        if "never-boots" in planned:
            self._journal(instance, planned["never-boots"])
            return None
        if slow := planned.get("slow-boot"):
            self._journal(instance, slow)
            return usual_s + (slow.seconds or 0.0)
        return usual_s

    def endings(self, instance: Instance) -> list[Ending]:
        """The instance's planned ends."""
        planned = self._of(instance)
        endings = []
        if one := planned.get("launch-dies"):
            endings.append(Ending(one.ends_at, one.code, "The launch failed", False, one))
        if one := planned.get("dies"):
            message = "Internal error of the host"
            endings.append(Ending(one.begins_at, "Server.InternalError", message, False, one))
        if one := planned.get("spot-interruption"):
            code, message = "Server.SpotInstanceTermination", "Spot instance termination"
            endings.append(Ending(one.ends_at, code, message, True, one))
        return endings

    def sticks_s(self, instance: Instance) -> float | None:
        """How long its end takes beyond the usual; None: until it is forced."""
        planned = self._of(instance).get("sticks")
        if planned is None:
            return 0.0
        self._journal(instance, planned)
        return planned.seconds

    def ended(self, instance: Instance, ending: Ending) -> None:
        """Record that the instance had this planned end."""
        self._journal(instance, ending.fault)

    def notice(self, instance: Instance) -> bytes | None:
        """What the metadata service has at `spot/instance-action`."""
        planned = self._of(instance).get("spot-interruption")
        if planned is None or self._clock() < planned.begins_at:
            return None
        self._journal(instance, planned)
        at = datetime.fromtimestamp(planned.ends_at, UTC)
        return json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}).encode()

    def false_identity(self, instance: Instance) -> str | None:
        """The id of another instance that its identity document names; None: it names itself."""
        planned = self._of(instance).get("false-identity")
        if planned is None:
            return None
        self._journal(instance, planned)
        return f"i-{'f' * 8}{instance.id[-9:]}"

    def is_hidden(self, instance: Instance) -> bool:
        """Whether calls do not know the instance yet."""
        planned = self._of(instance).get("hidden")
        if planned is None or not planned.is_active(self._clock()):
            return False
        self._journal(instance, planned)
        return True

    def shown(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """What describing calls show of instances: not the hidden ones, and some as they were."""
        if not self._planned:
            return instances
        return [self._as_shown(one) for one in instances if not self.is_hidden(one)]

    def _as_shown(self, instance: Instance) -> Instance:
        planned = self._of(instance).get("stale")
        if planned is None:
            return instance
        older = self._state.as_of(instance, self._clock() - (planned.seconds or 0.0))
        if older.state != instance.state:
            self._journal(instance, planned)
        return older

    def _of(self, instance: Instance) -> dict[str, Fault]:
        return self._planned.get(instance.id, NO_FAULTS)

    def _save(self, instance: Instance, planned: dict[str, Fault]) -> None:
        fault.write(self._state.directory(instance.id), planned)
        self._remember(instance.id, planned)

    def _remember(self, instance_id: str, planned: dict[str, Fault]) -> None:
        if "stale" in planned:
            self._state.keep_past(instance_id)
        self._planned[instance_id] = planned

    def _journal(self, instance: Instance, one: Fault) -> None:
        fault.journal(self._state.directory(instance.id), one, once=True)


def subject(state: State, instance: Instance) -> Subject:
    """An instance as fault rules see it."""
    requested = instance.parameters
    return Subject(
        instance_type=requested["InstanceType"],
        subnet=requested.get("SubnetId", ""),
        zone=instance.zone,
        capacity_type=instance.capacity_type,
        token=state.reservation(instance).token,
        instance=instance.id,
    )


def _fault(rule: FaultRule, since: float, number: float) -> Fault:
    begins_at, seconds = since + rule.after, rule.duration_s
    if rule.kind == "dies":
        begins_at, seconds = begins_at + number * (seconds or 0.0), None
    return Fault(rule.kind, rule.id, begins_at, seconds, rule.error_code)
