"""The operator's price table: what instance types and disks cost. Pure: text in, prices out.

Promise: a table is read whole or refused, with the line and what is wrong with it; what is read is
exact.

The form is CSV with a header, so that a spreadsheet and an editor can write it, and an error has a line:

    item,region,on_demand_usd,spot_usd
    t3.small,,0.0208,0.0062
    t3.small,eu-central-1,0.0240,0.0072
    gp3,,0.08,

An item is an instance type, its prices are for an hour; or `gp3`, its price is for a GB of disk and a
month. A row without a region holds for every region that has none of its own. Lines that are empty or
begin with `#` are passed over.

Spot: EC2 bills what the market's price is from hour to hour, which is known afterwards, in the account's
own data feed. The table's spot price stands for it: an average, or what is bid at most. Where it is left
out the on-demand price takes its place, which a spot instance without a bid of its own never exceeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from atemporal.billing import Price, amount, dollars
from atemporal.errors import Invalid
from atemporal.model.forms import INSTANCE_TYPE

HEADER = ("item", "region", "on_demand_usd", "spot_usd")
DISK = "gp3"

_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]+")
# A spreadsheet quotes what needs none.
_VALUE = re.compile(r'([^",]*)|"([^",]*)"')


class Row(NamedTuple):
    """The prices of one item in one region, in billionths of a dollar; region "" is any."""

    item: str
    region: str
    on_demand: int
    spot: int | None = None


@dataclass(frozen=True)
class PriceTable:
    """Prices by item and region."""

    rows: Mapping[tuple[str, str], Row] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, *, name: str) -> PriceTable:
        """Read a table; `name` is what an error calls it.

        Raises:
            Invalid: with each bad line and why.
        """
        rows: dict[tuple[str, str], Row] = {}
        wrong: dict[str, str] = {}
        header_seen = False
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                values = _values(line)
                if not header_seen:
                    header_seen = True
                    _check_header(values)
                    continue
                row = _row(values)
                if (row.item, row.region) in rows:
                    where = f" in {row.region}" if row.region else ""
                    raise ValueError(f"{row.item}{where} is there twice")
                rows[row.item, row.region] = row
            except ValueError as error:
                wrong[f"{name}, line {number}"] = str(error)
        if not rows and not wrong:
            wrong[name] = f"it has no prices; the first line is {','.join(HEADER)}"
        if wrong:
            raise Invalid(wrong)
        return cls(rows)

    def find(self, item: str, region: str) -> Row | None:
        """The row of an item in a region, or of any region."""
        return self.rows.get((item, region)) or self.rows.get((item, ""))

    def price(
        self,
        instance_type: str,
        capacity_type: Literal["on-demand", "spot"],
        region: str,
        *,
        gb: int,
    ) -> Price | None:
        """What an instance costs with `gb` of disks; None where its type is not in the table."""
        row = self.find(instance_type, region)
        if row is None:
            return None
        spot = capacity_type == "spot" and row.spot is not None
        disk = self.find(DISK, region)
        hour = row.spot if spot and row.spot is not None else row.on_demand
        return Price(hour, disk.on_demand if disk else 0, gb if disk else 0)


def written(rows: Iterable[Row], *, remark: str = "") -> str:
    """A table as text, sorted; `parse` reads it."""
    lines = [f"# {line}" for line in remark.splitlines()]
    lines.append(",".join(HEADER))
    for row in sorted(rows, key=lambda row: (row.region, row.item)):
        spot = "" if row.spot is None else dollars(row.spot)
        lines.append(f"{row.item},{row.region},{dollars(row.on_demand)},{spot}")
    return "\n".join(lines) + "\n"


def _values(line: str) -> list[str]:
    values = []
    for value in line.split(","):
        match = _VALUE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value.strip()!r} is no value: none of them needs quotes inside")
        values.append((match[1] or match[2] or "").strip())
    return values


def _check_header(values: list[str]) -> None:
    if tuple(values) != HEADER:
        raise ValueError(
            f"the header is {','.join(values)!r}; it has to be {','.join(HEADER)}: prices in US dollars"
        )


def _row(values: list[str]) -> Row:
    if len(values) != len(HEADER):
        raise ValueError(f"it has {len(values)} values, not {len(HEADER)}: {','.join(HEADER)}")
    item, region, on_demand, spot = values
    if item != DISK and not INSTANCE_TYPE.fullmatch(item):
        raise ValueError(f"{item!r} is neither an instance type like t3.small nor {DISK}")
    if region and not _REGION.fullmatch(region):
        raise ValueError(f"{region!r} is no region like eu-central-1; leave it empty for any")
    if item == DISK and spot:
        raise ValueError(f"{DISK} has no spot price; leave it empty")
    price = _price("on_demand_usd", on_demand)
    return Row(item, region, price, _price("spot_usd", spot) if spot else None)


def _price(column: str, text: str) -> int:
    try:
        price = amount(text)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None
    if price <= 0:
        raise ValueError(f"{column}: {text} is no price; nothing here is free")
    return price
