"""Concurrency limits: how much may be under way at once, and what a job has to wait for.

Promise: pure. A limit has one of five names: `jobs`, `instances`, `vcpus`, `KEY=VALUE` for the jobs with
that label, and `KEY=*` for those of each value of it, each value by itself. A label's own limit takes
the place of the one with `*`. What is counted is counted under a name without `*`.
Mechanism: `Room` is what is left under each limit. Jobs that a label or the vCPUs keep back wait in
*lanes*, so that whoever may not start is in nobody's way: a lane is a label (`team=mi6`), a size
(`vcpus 8`), or a type of which nobody knows its vCPUs yet (`vcpus of m7i.large`). `jobs` and `instances`
are the same for all, so where they are used up nothing starts and nobody needs a lane.
Failure: a job whose type nobody knows counts for nothing and does not start while there is a limit on
vCPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple, TypeGuard

from atemporal.errors import Invalid
from atemporal.model.forms import LABEL
from atemporal.model.text import storable

JOBS, INSTANCES, VCPUS = "jobs", "instances", "vcpus"
OF_ALL = (JOBS, INSTANCES, VCPUS)
"""The limits on all jobs together."""
OF_INSTANCES = (INSTANCES, VCPUS)
"""Those that an instance holds until EC2 confirms that it is gone."""

MOST = 1_000_000
"""The largest limit."""
LONGEST_VALUE = 255
_EACH = "*"
_SIZE, _UNKNOWN = f"{VCPUS} ", f"{VCPUS} of "


def check_name(name: str) -> str:
    """Return the name of a limit.

    Raises:
        Invalid: it is none; it says what one looks like.
    """
    key, equals, value = name.partition("=")
    good = name in OF_ALL or (
        LABEL.fullmatch(key) and equals and len(value) <= LONGEST_VALUE and storable(value)
    )
    if not good:
        raise Invalid(
            {
                "name": f"{name!r} is no limit; write jobs, instances, vcpus, a label as NAME=VALUE, or "
                "NAME=* for each value of it by itself"
            }
        )
    return name


def check_most(most: object) -> int:
    """Return how many a limit allows.

    Raises:
        Invalid: it is no whole number from 0 to `MOST`.
    """
    if type(most) is not int or not 0 <= most <= MOST:
        raise Invalid({"most": f"is no whole number from 0 to {MOST}"})
    return most


def limit_of(lane: str) -> str:
    """The name under which a lane's jobs are counted: `team=mi6` of `team=mi6`, `vcpus` of `vcpus 8`."""
    return lane if "=" in lane else lane.partition(" ")[0]


def size_of(lane: str) -> int:
    """How much a job of a lane needs."""
    size = lane.removeprefix(_SIZE)
    return int(size) if size != lane and size.isdecimal() else 1


def is_counted(value: object) -> TypeGuard[str]:
    """Whether a label with this value counts for a limit; a hand may have written anything there."""
    return isinstance(value, str) and len(value) <= LONGEST_VALUE


def unknown_type_of(lane: str) -> str | None:
    """The type of which nobody knows the vCPUs, where that is what a lane waits for."""
    return lane.removeprefix(_UNKNOWN) if lane.startswith(_UNKNOWN) else None


class Rules:
    """The limits that are set, by name."""

    def __init__(self, most: Mapping[str, int]) -> None:
        """Take how many each allows."""
        self._most = dict(most)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._most)

    def __contains__(self, name: str) -> bool:
        """Whether there is a limit of just this name."""
        return name in self._most

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self._most)

    def rule_for(self, name: str) -> str | None:
        """The limit that holds for what is counted under a name; None where none does."""
        if name in self._most:
            return name
        key, equals, _ = name.partition("=")
        each = f"{key}={_EACH}"
        return each if equals and each in self._most else None

    def most(self, name: str) -> int | None:
        """How many may be counted under a name; None where nothing limits it."""
        rule = self.rule_for(name)
        return None if rule is None else self._most[rule]

    def counted(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The names under which a job with these labels is counted."""
        of_labels = (f"{key}={value}" for key, value in sorted(labels.items()))
        return tuple(name for name in (*OF_ALL, *of_labels) if self.rule_for(name))


class Place(NamedTuple):
    """Where a job stands in the order of dispatch: smaller is earlier. `at` is in seconds."""

    minus_priority: int
    at: float
    job_id: str


class Demand(NamedTuple):
    """What a job needs in order to start: the names that count it, and the types it may get."""

    place: Place
    names: tuple[str, ...]
    instance_types: tuple[str, ...]


class Room:
    """What is left under each limit, while jobs are let in one by one in the order of dispatch."""

    def __init__(
        self,
        rules: Rules,
        used: Mapping[str, int],
        held_types: Iterable[tuple[Sequence[str], int]],
        vcpus: Mapping[str, int],
    ) -> None:
        """Take what is set, what is held, and the vCPUs of the types that are known.

        `used` are the slots under each name. `held_types` says for how many slots of `vcpus` which types
        may be meant; each counts as the largest of its types.
        """
        self._rules = rules
        self._vcpus = vcpus
        self._used = dict(used)
        self._unknown: str | None = None
        # Of these lanes not all that wait were read: the place of the last one that was.
        self._read_up_to: dict[str, Place] = {}
        total = 0
        for types, many in held_types:
            size = self._size(types)
            if size is None:
                self._unknown = next(one for one in types if one not in vcpus)
            total += many * (size or 0)
        self._used[VCPUS] = total

    def used(self, name: str) -> int:
        """How much is held under a name."""
        return self._used.get(name, 0)

    def names(self) -> list[str]:
        """The names under which anything is held."""
        return [name for name, many in self._used.items() if many]

    def starts(self) -> float:
        """How many jobs may start at most, whatever they are: by `jobs` and `instances`."""
        return min(self._left(JOBS), self._left(INSTANCES))

    def of_lane(self, lane: str) -> float:
        """How many jobs of a lane may start, as far as that lane goes."""
        if limit_of(lane) != VCPUS:
            return self._left(lane)
        if VCPUS not in self._rules:
            return inf
        if (unknown := unknown_type_of(lane)) is not None:
            return inf if unknown in self._vcpus else 0
        return 0 if self._unknown else self._left(VCPUS) // size_of(lane)

    def read_up_to(self, lane: str, place: Place) -> None:
        """Say that more wait in a lane, behind this place: nobody from elsewhere may pass them."""
        self._read_up_to[lane] = place

    def lane_for(self, demand: Demand) -> str | None:
        """The lane in which a job has to wait; None if it may start now."""
        for name in demand.names:
            if name in OF_ALL:
                continue
            if self._left(name) < 1 or self._passes(demand, name):
                return name
        if VCPUS in demand.names:
            size = self._size(demand.instance_types)
            if size is None:
                unknown = next(one for one in demand.instance_types if one not in self._vcpus)
                return f"{_UNKNOWN}{unknown}"
            lane = f"{_SIZE}{size}"
            if self._unknown:
                return f"{_UNKNOWN}{self._unknown}"
            if size > self._left(VCPUS) or self._passes(demand, lane):
                return lane
        return None

    def take(self, demand: Demand) -> None:
        """Let a job in."""
        for name in demand.names:
            amount = (self._size(demand.instance_types) or 0) if name == VCPUS else 1
            self._used[name] = self.used(name) + amount

    def _left(self, name: str) -> float:
        most = self._rules.most(name)
        return inf if most is None else max(0, most - self.used(name))

    def _passes(self, demand: Demand, lane: str) -> bool:
        last = self._read_up_to.get(lane)
        return last is not None and demand.place > last

    def _size(self, types: Sequence[str]) -> int | None:
        """The vCPUs of the largest of the types; None where one is not known."""
        if any(one not in self._vcpus for one in types):
            return None
        return max((self._vcpus[one] for one in types), default=0)
