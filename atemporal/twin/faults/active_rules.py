"""The fault rules that are active on a twin, and their random numbers.

Promise: rules can be added and removed at any time. They survive the twin's death, with how often
each was used. The same seed, rules and order of events give the same faults: each rule has random
numbers of its own, whose n-th follows from the seed, the rule's id and n, so one rule does not
disturb another.

    faults/rules.json    the seed, the active rules, how often each was used and drew a number
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

from pydantic import ValidationError

from atemporal.errors import Invalid, NotFound
from atemporal.model import describe
from atemporal.twin import jsonfile
from atemporal.twin.faults.journal import Journal
from atemporal.twin.faults.kind import LAUNCH, Site
from atemporal.twin.faults.rule import FaultRule, Subject


@dataclass
class _Active:
    rule: FaultRule
    used: int = 0
    drawn: int = 0

    @property
    def used_up(self) -> bool:
        return self.rule.times is not None and self.used >= self.rule.times


class ActiveRules:
    """All fault rules of a twin; safe from any thread.

    `calls` are the actions that the twin has. `inject` carries out a rule that names a running
    machine: it gets the rule and a random number from 0 to 1. A `seed` of None is the one that was
    used before, or 0.
    """

    def __init__(
        self,
        directory: Path,
        seed: int | None,
        calls: Collection[str],
        inject: Callable[[FaultRule, float], None],
    ) -> None:
        self.journal = Journal(directory)
        self._calls = calls
        self._inject = inject
        self._file = directory / "faults/rules.json"
        self._file.parent.mkdir(exist_ok=True)
        saved = jsonfile.read(self._file) or {}
        self._seed = saved.get("seed", 0) if seed is None else seed
        self._last_id = saved.get("last_id", 0)
        self._active = [
            _Active(FaultRule.model_validate(one["rule"]), one["used"], one["drawn"])
            for one in saved.get("active", ())
        ]
        self._lock = threading.RLock()

    @property
    def seed(self) -> int:
        """What the random numbers follow from."""
        return int(self._seed)

    def add(self, kind: str, /, **fields: Any) -> FaultRule:
        """Make a rule active; return it with its id.

        A fault of a machine whose rule names an instance is carried out at once, and only there.

        Raises:
            Invalid: it can not be carried out.
            NotFound, Conflict: the instance that it names does not exist or is ending.
        """
        try:
            rule = FaultRule.model_validate({"kind": kind, **fields, "id": ""})
        except ValidationError as error:
            raise Invalid(
                {("rule" if name == "job" else name): why for name, why in describe(error).items()}
            ) from None
        if not any(fnmatchcase(call, rule.call) for call in self._calls):
            known = ", ".join(self._calls)
            raise Invalid({"call": f"the twin has no call {rule.call!r}; it has {known}"})
        with self._lock:
            self._last_id += 1
            active = _Active(rule.model_copy(update={"id": f"f{self._last_id}"}))
            if rule.target:
                number = self._use(active)
            else:
                self._active.append(active)
                number = None
            self._save()
        if number is not None:
            self._inject(active.rule, number)
        return active.rule

    def remove(self, rule_id: str) -> None:
        """Remove one rule.

        Raises:
            NotFound: there is none with this id.
        """
        with self._lock:
            left = [active for active in self._active if active.rule.id != rule_id]
            if len(left) == len(self._active):
                raise NotFound(f"there is no rule {rule_id!r}")
            self._active = left
            self._save()

    def clear(self) -> None:
        """Remove all rules. What is planned for a machine stays."""
        with self._lock:
            self._active.clear()
            self._save()

    def rules(self) -> list[tuple[FaultRule, int]]:
        """The active rules, each with how often it was used; the first that fits comes first."""
        with self._lock:
            return [(active.rule, active.used) for active in self._active]

    def counts(self) -> dict[str, int]:
        """How many faults of each kind have been injected, by rules of all times."""
        return self.journal.counts()

    def take(
        self,
        site: Site,
        call: str,
        subjects: Collection[Subject],
        possible: Callable[[str], bool] = lambda _kind: True,
    ) -> FaultRule | None:
        """The rule to inject into this call now: the first that fits, if its probability has it."""
        with self._lock:
            for active in self._fitting(site, call, subjects):
                if possible(active.rule.kind) and self._use(active) is not None:
                    return active.rule
        return None

    def for_launch(self, subject: Subject) -> list[tuple[FaultRule, float]]:
        """All rules for a machine at its launch, one a kind, each with a random number."""
        chosen: dict[str, tuple[FaultRule, float]] = {}
        with self._lock:
            for active in self._fitting(Site.MACHINE, LAUNCH, [subject]):
                rule = active.rule
                possible = not rule.is_a.spot_only or subject.capacity_type == "spot"
                if possible and rule.kind not in chosen:
                    number = self._use(active)
                    if number is not None:
                        chosen[rule.kind] = (rule, number)
        return list(chosen.values())

    def _fitting(self, site: Site, call: str, subjects: Collection[Subject]) -> list[_Active]:
        return [
            active
            for active in self._active
            if active.rule.is_a.site is site
            and not active.used_up
            and fnmatchcase(call, active.rule.call)
            and active.rule.is_a.call in ("*", call)
            and active.rule.match.fits(subjects)
        ]

    def _use(self, active: _Active) -> float | None:
        """Use a rule, if its probability has it; return a random number to go on with."""
        if self._draw(active) >= active.rule.probability:
            return None
        active.used += 1
        number = self._draw(active)
        self._save()
        return number

    def _draw(self, active: _Active) -> float:
        active.drawn += 1
        rng = Random(f"{self._seed} {active.rule.id} {active.drawn}")
        return rng.random()

    def _save(self) -> None:
        active = [
            {"rule": one.rule.model_dump(mode="json"), "used": one.used, "drawn": one.drawn}
            for one in self._active
        ]
        content = {"seed": self._seed, "last_id": self._last_id, "active": active}
        jsonfile.replace(self._file, content)
