"""`atemporal prices`: the operator's price table.

Promise: what `make` writes the daemons read, and what `check` passes they read as well. Neither asks
AWS: the price list is a public file, which is downloaded by whatever may reach it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from atemporal.cli.output import note
from atemporal.errors import Conflict, Invalid
from atemporal.plural import counted

if TYPE_CHECKING:
    from atemporal.price_table import Row

_REMARK = """Prices in US dollars: of an instance for an hour, of gp3 for a GB and a month.
Made from AWS' public price list, which has no spot prices: fill in that column."""


@click.group
def prices() -> None:
    """The price table: make it from AWS' price list, check it.

    ATEMPORAL_PRICES_FILE names it. It is a CSV file that any editor or spreadsheet can write:

    \b
        item,region,on_demand_usd,spot_usd
        t3.small,,0.0208,0.0062
        t3.small,eu-central-1,0.0240,
        gp3,,0.08,

    An instance type costs so much in an hour; gp3 so much for a GB of disk and a month. A row without a
    region holds for every region that has none of its own. Without a spot price the on-demand price
    counts, which is more. The daemons read the table when they start.
    """


@prices.command
@click.argument("files", nargs=-1, required=True, metavar="OFFER_FILE...", type=click.Path())
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only these instance types; repeated."
)
@click.option(
    "--spot-from",
    metavar="TABLE",
    type=click.Path(),
    help="Take the spot prices over from this price table.",
)
def make(files: Sequence[str], types: Sequence[str], spot_from: str | None) -> None:
    """Make a price table of AWS' offer files, and print it.

    An offer file is AWS' public list of one region's prices, as CSV (read line by line) or as JSON (read
    whole, some gigabytes of memory):

    \b
        curl -O https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current/eu-central-1/index.csv
        atemporal prices make index.csv > prices.csv

    - is standard input, as CSV.
    """
    from atemporal.price_table import DISK, written
    from atemporal.prices import read_table

    earlier = read_table(spot_from) if spot_from else None
    rows: dict[tuple[str, str], Row] = {}
    for file in files:
        for row in _rows_of(file):
            if types and row.item not in (*types, DISK):
                continue
            known = earlier and earlier.find(row.item, row.region)
            if known and row.item != DISK:
                row = row._replace(spot=known.spot)
            if rows.setdefault((row.item, row.region), row) != row:
                raise Conflict(f"two files have different prices for {row.item} in {row.region}")
    missing = set(types) - {item for item, _ in rows}
    if missing:
        raise Invalid({"--type": f"no price of {', '.join(sorted(missing))} is in these files"})
    click.echo(written(rows.values(), remark=_REMARK), nl=False)
    note(counted(len(rows), "price"))


@prices.command
@click.argument("table", type=click.Path())
def check(table: str) -> None:
    """Read a price table as the daemons do, and say what is wrong with it."""
    from atemporal.price_table import DISK
    from atemporal.prices import read_table

    found = read_table(table)
    no_disk = not any(item == DISK for item, _ in found.rows)
    click.echo(f"{table}: {counted(len(found.rows), 'price')}")
    if no_disk:
        note(f"it has no row {DISK}: disks count with nothing")


def _rows_of(file: str) -> list[Row]:
    from atemporal import offer_file

    if file == "-":
        return offer_file.from_csv(sys.stdin, name=file)
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as opened:
            if _is_json(opened):
                return offer_file.from_json(json.load(opened), name=file)
            return offer_file.from_csv(opened, name=file)
    except (OSError, ValueError) as error:
        raise Invalid({file: str(error)}) from None


def _is_json(opened: TextIO) -> bool:
    first = opened.read(1)
    opened.seek(0)
    return first == "{"


COMMANDS = {"prices": prices}
