"""What goes wrong with machines: the one place where a rule becomes a mishap of an instance.

Promise: a machine's mishaps are decided at its launch, or when a rule names it, and are on disk from
then on (see `mishaps`). Everything else asks here: a machine's life how long it is pending, when it
boots and how it is ended; the API how much it may show of an instance; the metadata service whether
there is a notice. What happens on the machine (hangs, and what its `curl` does) the machine reads
from its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from atemporal.errors import Conflict, Invalid, NotFound
from atemporal.twin import description, mishaps
from atemporal.twin.books import STOPPED, Books, Instance
from atemporal.twin.faults import Faults
from atemporal.twin.mishaps import Mishap
from atemporal.twin.rule import Rule, Subject

NO_MISHAPS: dict[str, Mishap] = {}


@dataclass(frozen=True)
class Ending:
    """An instance's end that nobody asked for; `orderly` ones press the power button first."""

    at: float
    code: str
    message: str
    orderly: bool
    mishap: Mishap


class Fates:
    """The mishaps of all instances."""

    def __init__(self, books: Books, faults: Faults, clock: Callable[[], float]) -> None:
        self._books = books
        self._faults = faults
        self._clock = clock
        self._decided: dict[str, dict[str, Mishap]] = {}
        for instance in books.instances():
            if found := mishaps.read(books.directory(instance.id)):
                self._keep(instance.id, found)

    def launched(self, instance: Instance) -> None:
        """Decide what is to go wrong with a new instance."""
        about = subject(self._books, instance)
        struck = self._faults.for_launch(about)
        if struck:
            since = instance.launched_at
            found = {rule.kind: _mishap(rule, since, number) for rule, number in struck}
            mishaps.write(self._books.directory(instance.id), found)
            self._keep(instance.id, found)

    def strike(self, rule: Rule, number: float) -> str:
        """Decide that a rule strikes the instance that it names, now; return the instance's id.

        Raises:
            NotFound, Conflict, Invalid: there is none, it is over, or this can not happen to it.
        """
        with self._books.lock:
            instance = self._books.get(rule.target or "")
            if instance is None:
                raise NotFound(f"there is no instance {rule.target}")
            if instance.over or instance.state == STOPPED:
                raise Conflict(f"{instance.id} is {instance.state}")
            if rule.is_a.spot_only and description.lifecycle(instance) != "spot":
                raise Invalid({"match": f"{instance.id} is no spot instance"})
            found = {**self._of(instance), rule.kind: _mishap(rule, self._clock(), number)}
            mishaps.write(self._books.directory(instance.id), found)
            self._keep(instance.id, found)
        return instance.id

    def pending_s(self, instance: Instance, usual_s: float) -> float | None:
        """How long it is pending; None: until something ends it."""
        return None if "launch-dies" in self._of(instance) else usual_s

    def boot_s(self, instance: Instance, usual_s: float) -> float | None:
        """How long it takes from running to its user-data; None: it never comes to that."""
        found = self._of(instance)
        if "never-boots" in found:
            self._record(instance, found["never-boots"])
            return None
        if slow := found.get("slow-boot"):
            self._record(instance, slow)
            return usual_s + (slow.seconds or 0.0)
        return usual_s

    def endings(self, instance: Instance) -> list[Ending]:
        """How the instance will be ended, whoever wants it or not."""
        found = self._of(instance)
        endings = []
        if mishap := found.get("launch-dies"):
            endings.append(Ending(mishap.ends, mishap.code, "The launch failed", False, mishap))
        if mishap := found.get("dies"):
            message = "Internal error of the host"
            endings.append(Ending(mishap.begins, "Server.InternalError", message, False, mishap))
        if mishap := found.get("spot-interruption"):
            code, message = "Server.SpotInstanceTermination", "Spot instance termination"
            endings.append(Ending(mishap.ends, code, message, True, mishap))
        return endings

    def ended(self, instance: Instance, ending: Ending) -> None:
        """An ending has come true."""
        self._record(instance, ending.mishap)

    def notice(self, instance: Instance) -> bytes | None:
        """What the metadata service has at `spot/instance-action`."""
        mishap = self._of(instance).get("spot-interruption")
        if mishap is None or self._clock() < mishap.begins:
            return None
        self._record(instance, mishap)
        at = datetime.fromtimestamp(mishap.ends, UTC)
        return json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}).encode()

    def is_hidden(self, instance: Instance) -> bool:
        """Whether calls do not know the instance yet."""
        mishap = self._of(instance).get("hidden")
        if mishap is None or not mishap.strikes(self._clock()):
            return False
        self._record(instance, mishap)
        return True

    def shown(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """What describing calls show of instances: not the hidden ones, and some as they were."""
        if not self._decided:
            return instances
        return [self._as_shown(one) for one in instances if not self.is_hidden(one)]

    def _as_shown(self, instance: Instance) -> Instance:
        mishap = self._of(instance).get("stale")
        if mishap is None:
            return instance
        older = self._books.as_of(instance, self._clock() - (mishap.seconds or 0.0))
        if older.state != instance.state:
            self._record(instance, mishap)
        return older

    def _of(self, instance: Instance) -> dict[str, Mishap]:
        return self._decided.get(instance.id, NO_MISHAPS)

    def _keep(self, instance_id: str, found: dict[str, Mishap]) -> None:
        if "stale" in found:
            self._books.keep_past(instance_id)
        self._decided[instance_id] = found

    def _record(self, instance: Instance, mishap: Mishap) -> None:
        mishaps.record(self._books.directory(instance.id), mishap, once=True)


def subject(books: Books, instance: Instance) -> Subject:
    """An instance as rules see it."""
    asked = instance.parameters
    return Subject(
        instance_type=asked["InstanceType"],
        subnet=asked.get("SubnetId", ""),
        zone=instance.zone,
        market=description.lifecycle(instance) or "on-demand",
        token=books.reservation(instance).token,
        instance=instance.id,
    )


def _mishap(rule: Rule, since: float, number: float) -> Mishap:
    begins, seconds = since + rule.after, rule.lasting_s
    if rule.kind == "dies":
        begins, seconds = begins + number * (seconds or 0.0), None
    return Mishap(rule.kind, rule.id, begins, seconds, rule.with_code)
