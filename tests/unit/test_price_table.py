"""The price table: read whole or refused with the line; and made of AWS' own price list."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from atemporal.billing import Price, amount, dollars
from atemporal.cli import main
from atemporal.errors import Invalid
from atemporal.model import parse_spec
from atemporal.price_table import PriceTable, Row, written
from atemporal.prices import Prices, load
from atemporal.settings import Settings

TABLE = """\
# of our own
item,region,on_demand_usd,spot_usd

t3.small,,0.0208,0.0062
t3.small,eu-central-1,0.0240,
"m7i.48xlarge","us-east-1","9.6768",
gp3,,0.08,
gp3,eu-central-1,0.0952,
"""


def table(text: str = TABLE) -> PriceTable:
    return PriceTable.parse(text, name="prices.csv")


@pytest.mark.parametrize(
    ("wanted", "price"),
    [
        (("t3.small", "on-demand", "us-east-1", 8), ("0.0208", "0.08", 8)),
        (("t3.small", "spot", "us-east-1", 8), ("0.0062", "0.08", 8)),
        # A region's own row; without a spot price the on-demand price is what it costs at most.
        (("t3.small", "spot", "eu-central-1", 0), ("0.0240", "0.0952", 0)),
        (("m7i.48xlarge", "on-demand", "us-east-1", 0), ("9.6768", "0.08", 0)),
    ],
)
def test_a_price_is_that_of_type_capacity_and_region(
    wanted: Any, price: tuple[str, str, int]
) -> None:
    *where, gb = wanted
    hour, gb_month, size = price
    assert table().price(*where, gb=gb) == Price(amount(hour), amount(gb_month), size)


def test_a_type_that_is_not_in_it_has_no_price() -> None:
    assert table().price("m7i.48xlarge", "on-demand", "eu-central-1", gb=0) is None


@pytest.mark.parametrize(
    ("line", "number", "why"),
    [
        ("t3.small,,0.0208", 2, "it has 3 values, not 4"),
        ("t3 small,,0.0208,", 2, "neither an instance type"),
        ("t3.small,Frankfurt,0.0208,", 2, "no region"),
        ("t3.small,,,", 2, "on_demand_usd: '' is no amount"),
        ("t3.small,,0,", 2, "nothing here is free"),
        ('t3.small,,"0,02",', 2, "none of them needs quotes inside"),
        ("t3.small,,1e-2,", 2, "on_demand_usd: '1e-2'"),
        ("t3.small,,0.02,free", 2, "spot_usd: 'free'"),
        ("gp3,,0.08,0.02", 2, "gp3 has no spot price"),
        ("t3.small,,1,\nt3.small,,2,", 3, "t3.small is there twice"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: str, number: int, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        table(f"item,region,on_demand_usd,spot_usd\n{line}\n")
    ((where, text),) = refused.value.fields.items()
    assert where == f"prices.csv, line {number}"
    assert why in text


@pytest.mark.parametrize("text", ["", "# nothing\n", "item,region,on_demand_eur,spot_eur\n"])
def test_a_table_without_prices_or_in_another_currency_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="on_demand_usd"):
        table(text)


def test_every_bad_line_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        table("item,region,on_demand_usd,spot_usd\nx\nt3.small,,1,\ny\n")
    assert list(refused.value.fields) == ["prices.csv, line 2", "prices.csv, line 4"]


def test_a_written_table_is_read_as_it_was() -> None:
    rows = table().rows
    assert table(written(rows.values(), remark="one\ntwo")).rows == rows


def test_settings_name_the_table_and_a_bad_one_stops_the_start(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(TABLE)
    bad.write_text(TABLE + "what\n")
    prices = load(Settings(prices_file=str(good), region="eu-central-1"))
    assert prices.of("t3.small", "on-demand", gb=8) == Price(amount("0.024"), amount("0.0952"), 8)
    with pytest.raises(Invalid, match="line 9"):
        load(Settings(prices_file=str(bad)))
    with pytest.raises(Invalid, match="ATEMPORAL_PRICES_FILE"):
        load(Settings(prices_file=str(tmp_path / "none.csv")))


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, None),
        ({"max_cost": "1.50"}, None),
        ({"machine": {"instance_types": ["c5.large"]}}, None),
        (
            {"max_cost": "1.50", "machine": {"instance_types": ["t3.small", "c5.large"]}},
            "c5.large",
        ),
    ],
)
def test_a_bound_is_refused_where_no_price_is_known(
    fields: dict[str, Any], missing: str | None
) -> None:
    prices = Prices("us-east-1", "t3.small", table())
    spec = parse_spec({"image": "busybox", **fields})
    if missing is None:
        prices.check(spec)
        return
    with pytest.raises(Invalid) as refused:
        prices.check(spec, within="job.")
    assert missing in refused.value.fields["job.max_cost"]
    assert "t3.small" not in refused.value.fields["job.max_cost"]


@pytest.mark.parametrize(
    ("machine", "least"),
    [
        ({}, "0.000346667"),
        ({"instance_types": ["m5.huge", "t3.small"]}, "0.000346667"),
        ({"capacity_type": "spot"}, "0.0001"),
        ({"capacity_type": "spot-then-on-demand"}, "0.0001"),
        ({"disk_gb": 300}, "0.000902223"),
    ],
)
def test_a_bound_below_what_is_billed_at_least_is_refused(
    machine: dict[str, Any], least: str
) -> None:
    rows = "t3.small,,0.0208,0.006\nm5.huge,,9,3\ngp3,,0.08,\n"
    known = PriceTable.parse("item,region,on_demand_usd,spot_usd\n" + rows, name="prices.csv")
    prices = Prices("us-east-1", "t3.small", known)
    enough = {"image": "busybox", "machine": machine, "max_cost": least}
    prices.check(parse_spec(enough))
    too_little = dollars(amount(least) - 1)
    with pytest.raises(Invalid) as refused:
        prices.check(parse_spec({**enough, "max_cost": too_little}), within="job.")
    why = refused.value.fields["job.max_cost"]
    assert f"{too_little} is less than what t3.small costs for 60 seconds" in why
    assert f"give {dollars(amount(least))} or more" in why


@pytest.mark.parametrize(
    ("given", "read"), [("1.50", "1.50"), ("1.5", "1.50"), ("0.000000001", "0.000000001")]
)
def test_a_bound_is_the_same_however_it_is_written(given: str, read: str) -> None:
    assert parse_spec({"image": "busybox", "max_cost": given}).max_cost == read


@pytest.mark.parametrize("given", [1.5, 1, True, "0", "0.00", "-1", "1,5", "", "1000000"])
def test_what_is_no_bound_is_refused(given: object) -> None:
    with pytest.raises(Invalid) as refused:
        parse_spec({"image": "busybox", "max_cost": given})
    assert refused.value.fields.keys() == {"max_cost"}


# A few rows of an offer file, in the form that AWS documents: of each kind that must be passed over one.
_INSTANCE = {
    "TermType": "OnDemand",
    "Unit": "Hrs",
    "Currency": "USD",
    "Product Family": "Compute Instance",
    "Instance Type": "t3.small",
    "Operating System": "Linux",
    "Tenancy": "Shared",
    "CapacityStatus": "Used",
    "Pre Installed S/W": "NA",
    "MarketOption": "OnDemand",
    "Region Code": "eu-central-1",
    "Volume API Name": "",
    "usageType": "EUC1-BoxUsage:t3.small",
}
_DISK = {
    **dict.fromkeys(_INSTANCE, ""),
    "TermType": "OnDemand",
    "Unit": "GB-Mo",
    "Currency": "USD",
    "Product Family": "Storage",
    "Region Code": "eu-central-1",
    "Volume API Name": "gp3",
    "usageType": "EUC1-EBS:VolumeUsage.gp3",
}
OFFERS: list[dict[str, str]] = [
    {**_INSTANCE, "PricePerUnit": "0.0240000000"},
    {**_INSTANCE, "PricePerUnit": "0.0424000000", "Operating System": "Windows"},
    {**_INSTANCE, "PricePerUnit": "0.0264000000", "Tenancy": "Dedicated"},
    {
        **_INSTANCE,
        "PricePerUnit": "0.0000000000",
        "CapacityStatus": "AllocatedCapacityReservation",
    },
    {**_INSTANCE, "PricePerUnit": "0.0000000000"},
    {**_INSTANCE, "PricePerUnit": "0.5000000000", "Pre Installed S/W": "SQL Std"},
    {**_INSTANCE, "PricePerUnit": "0.0150000000", "TermType": "Reserved"},
    {**_INSTANCE, "PricePerUnit": "0.0200000000", "MarketOption": "CapacityBlock"},
    {
        **_INSTANCE,
        "PricePerUnit": "3.5940000000",
        "Instance Type": "c5.metal",
        "Product Family": "Compute Instance (bare metal)",
    },
    {**_DISK, "PricePerUnit": "0.0952000000"},
    {**_DISK, "PricePerUnit": "0.0060000000", "usageType": "EUC1-EBS:VolumeP-IOPS.gp3"},
    {**_DISK, "PricePerUnit": "0.1190000000", "Volume API Name": "gp2"},
]
EXPECTED = {
    ("t3.small", "eu-central-1"): Row("t3.small", "eu-central-1", amount("0.024")),
    ("c5.metal", "eu-central-1"): Row("c5.metal", "eu-central-1", amount("3.594")),
    ("gp3", "eu-central-1"): Row("gp3", "eu-central-1", amount("0.0952")),
}
_ATTRIBUTES = {
    "Instance Type": "instanceType",
    "Operating System": "operatingSystem",
    "Tenancy": "tenancy",
    "CapacityStatus": "capacitystatus",
    "Pre Installed S/W": "preInstalledSw",
    "MarketOption": "marketoption",
    "Region Code": "regionCode",
    "Volume API Name": "volumeApiName",
    "usageType": "usagetype",
}


def as_csv(offers: list[dict[str, str]]) -> str:
    text = io.StringIO()
    text.write('"FormatVersion","v1.0"\n"Disclaimer","..."\n"Publication Date","..."\n')
    text.write('"Version","20260101000000"\n"OfferCode","AmazonEC2"\n')
    names = ["SKU", *_INSTANCE, "PricePerUnit"]
    rows = csv.DictWriter(text, names, quoting=csv.QUOTE_ALL, lineterminator="\n")
    rows.writeheader()
    for number, offer in enumerate(offers):
        rows.writerow({"SKU": f"SKU{number}", **offer})
    return text.getvalue()


def as_json(offers: list[dict[str, str]]) -> str:
    products, terms = {}, {}
    for number, offer in enumerate(offers):
        sku = f"SKU{number}"
        products[sku] = {
            "sku": sku,
            "productFamily": offer["Product Family"],
            "attributes": {name: offer[column] for column, name in _ATTRIBUTES.items()},
        }
        if offer["TermType"] == "OnDemand":
            price = {"unit": offer["Unit"], "pricePerUnit": {"USD": offer["PricePerUnit"]}}
            terms[sku] = {f"{sku}.JRTC": {"priceDimensions": {f"{sku}.JRTC.6YS6": price}}}
    return json.dumps({"products": products, "terms": {"OnDemand": terms}})


@pytest.mark.parametrize("write", [as_csv, as_json])
def test_a_table_is_made_of_an_offer_file(write: Any, tmp_path: Path) -> None:
    offer, made = tmp_path / "index", tmp_path / "prices.csv"
    offer.write_text(write(OFFERS))
    done = CliRunner().invoke(main, ["prices", "make", str(offer)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made.write_text(done.stdout)
    assert table(done.stdout).rows == EXPECTED
    checked = CliRunner().invoke(main, ["prices", "check", str(made)], catch_exceptions=False)
    assert (checked.exit_code, checked.stdout) == (0, f"{made}: 3 prices\n")


def test_types_are_chosen_and_spot_prices_kept(tmp_path: Path) -> None:
    offer, earlier = tmp_path / "index.csv", tmp_path / "prices.csv"
    offer.write_text(as_csv(OFFERS))
    earlier.write_text(TABLE)
    words = ["prices", "make", str(offer), "--type", "t3.small", "--spot-from", str(earlier)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    # The region's own row of the earlier table has no spot price.
    assert {row.item: row.spot for row in table(done.stdout).rows.values()} == {
        "t3.small": None,
        "gp3": None,
    }
    earlier.write_text(TABLE.replace("eu-central-1,0.0240,", "eu-central-1,0.0240,0.0072"))
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert "t3.small,eu-central-1,0.024,0.0072\n" in done.stdout


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "no AmazonEC2 offer file"),
        ("{}", "no AmazonEC2 offer file"),
        ("{", "Expecting"),
        (as_csv(OFFERS[1:3]), "no on-demand price"),
        (as_csv([OFFERS[0], {**OFFERS[0], "PricePerUnit": "0.03"}]), "two prices for t3.small"),
    ],
)
def test_what_is_no_offer_file_is_refused(text: str, why: str, tmp_path: Path) -> None:
    offer = tmp_path / "index"
    offer.write_text(text)
    done = CliRunner().invoke(main, ["prices", "make", str(offer)], catch_exceptions=False)
    assert done.exit_code == 2
    assert why in done.output
