"""The prices that this process goes by, and whether a job's bound on its cost can be held.

Promise: without a price table there are no prices, and nothing else changes; a bad one stops the process
at its start. A bound is accepted only where every instance that the job may get has a price, for one
that nobody can hold would be worse than none; and where it pays for what is billed at least of the
cheapest of them, for with less the job would be ended each time.
Failure: a table that was changed is read by a process when it starts. A job that was accepted under
another one is refused at its launch if its instance has no price any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from atemporal.billing import LEAST_S, Price, amount, dollars
from atemporal.errors import Invalid
from atemporal.model import JobSpec
from atemporal.price_table import DISK, PriceTable
from atemporal.settings import PREFIX, Settings

VARIABLE = f"{PREFIX}PRICES_FILE"


@dataclass(frozen=True)
class Prices:
    """A price table as a deployment uses it: in its region, with its default instance type."""

    region: str = ""
    instance_type: str = ""
    table: PriceTable = field(default_factory=PriceTable)

    @property
    def has_disks(self) -> bool:
        """Whether disks have a price."""
        return self.table.find(DISK, self.region) is not None

    def of(
        self, instance_type: str, capacity_type: Literal["on-demand", "spot"], *, gb: int = 0
    ) -> Price | None:
        """What an instance with `gb` of disks costs here; None where that is not known."""
        return self.table.price(instance_type, capacity_type, self.region, gb=gb)

    def unpriced(self, spec: JobSpec) -> Sequence[str]:
        """The instance types that a job may get and of which no price is known."""
        types = spec.machine.instance_types or (self.instance_type,)
        return [name for name in types if self.table.find(name, self.region) is None]

    def check(self, spec: JobSpec, *, within: str = "") -> None:
        """Refuse a bound on the cost that could not be held; `within` is what the field is part of.

        Raises:
            Invalid: it says what to do.
        """
        if spec.max_cost is None:
            return
        if missing := self.unpriced(spec):
            why = (
                f"no price is known for {', '.join(missing)} in {self.region}: "
                f"have the operator add it to the price table ({VARIABLE}), ask for a type that is in "
                "it, or leave max_cost out"
            )
            raise Invalid({f"{within}max_cost": why})
        least, name = self._least(spec)
        if amount(spec.max_cost) < least:
            why = (
                f"{spec.max_cost} is less than what {name} costs for {LEAST_S} seconds, which are "
                f"billed at least: it would be ended each time; give {dollars(least)} or more, or leave "
                "max_cost out"
            )
            raise Invalid({f"{within}max_cost": why})

    def _least(self, spec: JobSpec) -> tuple[int, str]:
        """What the cheapest instance that a job may get costs at least, and its type."""
        machine = spec.machine
        kinds: tuple[Literal["on-demand", "spot"], ...] = ("on-demand", "spot")
        # The name of a job's capacity type holds those that will do.
        return min(
            (price.cost(LEAST_S), name)
            for name in machine.instance_types or (self.instance_type,)
            for kind in kinds
            if kind in machine.capacity_type
            and (price := self.of(name, kind, gb=machine.disk_gb or 0)) is not None
        )


NO_PRICES = Prices()


def load(settings: Settings) -> Prices:
    """Read the price table that the settings name.

    Raises:
        Invalid: it can not be read, or a line of it is bad.
    """
    table = PriceTable() if settings.prices_file is None else read_table(settings.prices_file)
    return Prices(settings.region, settings.instance_type, table)


def read_table(path: str) -> PriceTable:
    """Read a price table.

    Raises:
        Invalid: it can not be read, or a line of it is bad.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid({VARIABLE: f"{path}: {error}"}) from None
    return PriceTable.parse(text, name=path)
