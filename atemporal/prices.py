"""The prices that this process goes by, and whether a job's bound on its cost can be held.

Promise: without a price table there are no prices, and nothing else changes; a bad one stops the process
at its start. A bound is accepted only where every instance that the job may get has a price: one that
nobody can hold would be worse than none.
Failure: a table that was changed is read by a process when it starts. A job that was accepted under
another one is refused at its launch if its instance has no price any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from atemporal.billing import Price
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
        if spec.max_cost is None or not (missing := self.unpriced(spec)):
            return
        raise Invalid(
            {
                f"{within}max_cost": f"no price is known for {', '.join(missing)} in {self.region}: "
                f"have the operator add it to the price table ({VARIABLE}), ask for a type that is in "
                "it, or leave max_cost out"
            }
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
