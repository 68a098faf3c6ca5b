"""The rules that are active on a twin, and the dice.

Promise: rules can be added and taken away at any time and survive the twin's death, with how often
each has struck. The same seed, rules and order of events give the same faults: each rule has dice
of its own, whose n-th throw follows from the seed, the rule's id and n, so one rule does not
disturb another. What has struck is in the journal (see `mishaps`), kept for good.

    faults/rules.json    the seed, the active rules, how often each has struck and thrown
"""

from __future__ import annotations

import json
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
from atemporal.twin.books import replace_file
from atemporal.twin.mishaps import Journal
from atemporal.twin.rule import Rule, Site, Subject


@dataclass
class _Active:
    rule: Rule
    used: int = 0
    thrown: int = 0

    @property
    def worn_out(self) -> bool:
        return self.rule.times is not None and self.used >= self.rule.times


class Faults:
    """All rules of a twin; safe from any thread.

    `strike` carries out a rule that names a machine which runs: it gets the rule and a throw of the
    dice. `seed` of None is the one it had, or 0.
    """

    def __init__(
        self, directory: Path, seed: int | None, strike: Callable[[Rule, float], None]
    ) -> None:
        self.journal = Journal(directory)
        self._strike = strike
        self._file = directory / "faults/rules.json"
        self._file.parent.mkdir(exist_ok=True)
        kept: dict[str, Any] = json.loads(self._file.read_bytes()) if self._file.exists() else {}
        self._seed = kept.get("seed", 0) if seed is None else seed
        self._last_id = kept.get("last_id", 0)
        self._active = [
            _Active(Rule.model_validate(one["rule"]), one["used"], one["thrown"])
            for one in kept.get("active", ())
        ]
        self._lock = threading.RLock()

    @property
    def seed(self) -> int:
        """What the dice follow from."""
        return int(self._seed)

    def add(self, kind: str, /, **fields: Any) -> Rule:
        """Make a rule active; return it with its id.

        A fault of a machine whose rule names an instance is carried out at once, and only there.

        Raises:
            Invalid: it can not be carried out.
            NotFound, Conflict: the instance that it names does not exist or is ending.
        """
        try:
            rule = Rule.model_validate({"kind": kind, **fields, "id": ""})
        except ValidationError as error:
            raise Invalid(
                {("rule" if name == "job" else name): why for name, why in describe(error).items()}
            ) from None
        with self._lock:
            self._last_id += 1
            active = _Active(rule.model_copy(update={"id": f"f{self._last_id}"}))
            if rule.target:
                number = self._strikes(active)
            else:
                self._active.append(active)
                number = None
            self._save()
        if number is not None:
            self._strike(active.rule, number)
        return active.rule

    def remove(self, rule_id: str) -> None:
        """Take one rule away.

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
        """Take all rules away. What has been decided for a machine stays."""
        with self._lock:
            self._active.clear()
            self._save()

    def rules(self) -> list[tuple[Rule, int]]:
        """The active rules in the order in which they are asked, with how often each has struck."""
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
        plausible: Callable[[str], bool] = lambda _kind: True,
    ) -> Rule | None:
        """The rule that strikes this call now: the first that fits, if its dice say so."""
        with self._lock:
            for active in self._fitting(site, call, subjects):
                if plausible(active.rule.kind) and self._strikes(active) is not None:
                    return active.rule
        return None

    def for_launch(self, subject: Subject) -> list[tuple[Rule, float]]:
        """All rules that strike a machine at its launch, one a kind, with a number from 0 to 1."""
        struck: dict[str, tuple[Rule, float]] = {}
        with self._lock:
            for active in self._fitting(Site.MACHINE, "RunInstances", [subject]):
                rule = active.rule
                possible = not rule.is_a.spot_only or subject.market == "spot"
                if possible and rule.kind not in struck:
                    number = self._strikes(active)
                    if number is not None:
                        struck[rule.kind] = (rule, number)
        return list(struck.values())

    def _fitting(self, site: Site, call: str, subjects: Collection[Subject]) -> list[_Active]:
        return [
            active
            for active in self._active
            if active.rule.is_a.site is site
            and not active.worn_out
            and fnmatchcase(call, active.rule.call)
            and active.rule.is_a.call in ("*", call)
            and active.rule.match.fits(subjects)
        ]

    def _strikes(self, active: _Active) -> float | None:
        """Throw the dice; if the rule strikes, return a number from 0 to 1 to go on with."""
        if self._throw(active) >= active.rule.probability:
            return None
        active.used += 1
        number = self._throw(active)
        self._save()
        return number

    def _throw(self, active: _Active) -> float:
        active.thrown += 1
        return Random(f"{self._seed} {active.rule.id} {active.thrown}").random()

    def _save(self) -> None:
        active = [
            {"rule": one.rule.model_dump(mode="json"), "used": one.used, "thrown": one.thrown}
            for one in self._active
        ]
        content = {"seed": self._seed, "last_id": self._last_id, "active": active}
        replace_file(self._file, content)
