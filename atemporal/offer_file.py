"""AWS' public price list of EC2, as far as a price table needs it: pure, lines or JSON in, rows out.

Promise: of the tens of thousands of prices in an offer file those alone are taken that an instance of
ours is billed by: on demand, Linux, shared tenancy, no software on top, used and not only reserved; and
gp3's price for a GB and a month. Two different prices for the same thing are an error, not a choice.
Source: AWS Billing User Guide, "Reading the service price list file for an AWS service": a CSV file has
five lines about itself, then the columns' names; a JSON file has `products` by SKU with `attributes`,
and `terms.OnDemand` by SKU with `priceDimensions`. It has no spot prices.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from atemporal.billing import CURRENCY, NANO
from atemporal.errors import Invalid
from atemporal.price_table import DISK, Row

_FAMILIES = ("Compute Instance", "Compute Instance (bare metal)")
# A column of the CSV file, by the attribute's name in the JSON file.
_COLUMNS = {
    "instanceType": "Instance Type",
    "operatingSystem": "Operating System",
    "tenancy": "Tenancy",
    "capacitystatus": "CapacityStatus",
    "preInstalledSw": "Pre Installed S/W",
    "marketoption": "MarketOption",
    "regionCode": "Region Code",
    "volumeApiName": "Volume API Name",
    "usagetype": "usageType",
}
_NEEDED = ("SKU", "TermType", "Unit", "PricePerUnit", "Currency", "Product Family")
_OF_AN_INSTANCE = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "preInstalledSw": "NA",
}


def from_csv(lines: Iterable[str], *, name: str) -> list[Row]:
    """The rows of an offer file in CSV, read line by line: it may be hundreds of megabytes.

    Raises:
        Invalid: it is none, or contradicts itself.
    """
    reader = csv.reader(lines)
    header = next((row for row in reader if row and row[0] == "SKU"), None)
    missing = [one for one in (*_NEEDED, *_COLUMNS.values()) if one not in (header or ())]
    missing = [one for one in missing if one != _COLUMNS["marketoption"]]
    if header is None or missing:
        raise Invalid({name: f"is no AmazonEC2 offer file: no column {', '.join(missing)}"})

    def found() -> Iterator[Row]:
        for values in reader:
            row = dict(zip(header, values, strict=False))
            if row["TermType"] == "OnDemand" and row["Currency"] == CURRENCY:
                attributes = {key: row.get(column, "") for key, column in _COLUMNS.items()}
                yield from _row(
                    row["Product Family"], attributes, row["Unit"], row["PricePerUnit"]
                )

    return _unambiguous(found(), name)


def from_json(offer: Any, *, name: str) -> list[Row]:
    """The rows of an offer file in JSON, parsed.

    Raises:
        Invalid: it is none, or contradicts itself.
    """
    try:
        return _unambiguous(_in(offer["products"], offer["terms"]["OnDemand"]), name)
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid({name: f"is no AmazonEC2 offer file: {error!r} is not there"}) from None


def _in(products: Mapping[str, Any], terms: Mapping[str, Any]) -> Iterator[Row]:
    for sku, product in products.items():
        for term in terms.get(sku, {}).values():
            for one in term["priceDimensions"].values():
                if price := one["pricePerUnit"].get(CURRENCY):
                    family = product.get("productFamily", "")
                    yield from _row(family, product["attributes"], one["unit"], price)


def _row(family: str, attributes: Mapping[str, str], unit: str, price: str) -> Iterator[Row]:
    region = attributes.get("regionCode", "")
    if family in _FAMILIES and unit == "Hrs":
        ours = all(attributes.get(key) == value for key, value in _OF_AN_INSTANCE.items())
        on_demand = attributes.get("marketoption", "") in ("", "OnDemand")
        item = attributes.get("instanceType", "")
        wanted = ours and on_demand
    else:
        item = attributes.get("volumeApiName", "")
        stored = attributes.get("usagetype", "").endswith(f"EBS:VolumeUsage.{DISK}")
        wanted = family == "Storage" and item == DISK and unit == "GB-Mo" and stored
    # What is free there is no price: a row of a reservation that is paid for otherwise.
    if wanted and region and (nano := round(Decimal(price) * NANO)) > 0:
        yield Row(item, region, nano)


def _unambiguous(rows: Iterable[Row], name: str) -> list[Row]:
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        known = found.setdefault((row.item, row.region), row)
        if known != row:
            raise Invalid({name: f"has two prices for {row.item} in {row.region}"})
    if not found:
        raise Invalid({name: "has no on-demand price of a Linux instance"})
    return list(found.values())
