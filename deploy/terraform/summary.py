"""What Terraform would create, and what it costs a month: `python -m deploy.terraform.summary [REGION]`.

Promise: each resource of the Terraform files is in it, with its cost in both sizes, or among those that
cost nothing or by use. No account, no Terraform, no network.
Mechanism: sizes from `sizes.tf`, prices from `prices.csv`; its last column says how good a figure is.
"""

from __future__ import annotations

import csv
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from atemporal.errors import Invalid
from deploy.terraform.configuration import Configuration, plain

HERE = Path(__file__).parent
REGIONS = ("us-east-1", "eu-central-1")
SIZES = ("small", "large")
TO_BE_CHECKED = "to be checked"
HOURS = 730
"""In a month, as AWS counts."""
_PER = {"hour": HOURS, "month": 1, "GB-month": 1}
_ZONES = 3
_BROKERS_GB = 20
_SERVERS_GB = 20

Size = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What one resource costs: how many of which item of the price table."""

    address: str
    what: str
    item: Callable[[Size], str]
    count: Callable[[Size], int]


def _nodes(size: Size) -> int:
    return 1 if size["broker_deployment"] == "SINGLE_INSTANCE" else 3


COSTS = (
    Cost(
        "aws_autoscaling_group.servers",
        "servers",
        lambda size: size["server_type"],
        lambda size: size["servers"],
    ),
    Cost(
        "aws_launch_template.server",
        "the servers' disks, GB",
        lambda size: "ebs gp3",
        lambda size: size["servers"] * _SERVERS_GB,
    ),
    Cost(
        "aws_db_instance.this",
        "PostgreSQL in two zones",
        lambda size: f"{size['database_class']} multi-az",
        lambda size: 1,
    ),
    Cost(
        "aws_db_instance.this",
        "its disk, GB",
        lambda size: "rds gp3 multi-az",
        lambda size: size["database_gb"],
    ),
    Cost("aws_mq_broker.this", "RabbitMQ", lambda size: size["broker_type"], _nodes),
    Cost(
        "aws_mq_broker.this",
        "its disks, GB (at most)",
        lambda size: "mq storage",
        lambda size: _nodes(size) * _BROKERS_GB,
    ),
    Cost(
        "aws_nat_gateway.this",
        "NAT gateways",
        lambda size: "nat gateway",
        lambda size: size["nat_gateways"],
    ),
    Cost(
        "aws_eip.nat",
        "their addresses",
        lambda size: "public ipv4",
        lambda size: size["nat_gateways"],
    ),
    Cost("aws_lb.this", "load balancers", lambda size: "load balancer", lambda size: 2),
    Cost(
        "aws_lb.this",
        "the public one's addresses",
        lambda size: "public ipv4",
        lambda size: _ZONES,
    ),
    Cost("aws_secretsmanager_secret.this", "secrets", lambda size: "secret", lambda size: 2),
)
BY_USE = {
    "aws_nat_gateway": "each GB that a server sends or gets through it",
    "aws_lb": "requests: a capacity unit an hour is a few dollars a month",
    "aws_cloudwatch_log_group": "each GB of logs, kept and taken",
    "aws_sqs_queue": "a million messages: less than a dollar",
    "aws_db_instance": "snapshots beyond the size of the disk",
}
FREE = frozenset(
    {
        *("aws_acm_certificate", "aws_acm_certificate_validation", "aws_cloudwatch_event_rule"),
        *("aws_cloudwatch_event_target", "aws_db_subnet_group", "aws_default_security_group"),
        *(
            "aws_iam_instance_profile",
            "aws_iam_role",
            "aws_iam_role_policy",
            "aws_internet_gateway",
        ),
        *("aws_lb_listener", "aws_lb_target_group", "aws_route53_record", "aws_route_table"),
        *(
            "aws_route_table_association",
            "aws_secretsmanager_secret_version",
            "aws_security_group",
        ),
        *(
            "aws_sqs_queue_policy",
            "aws_ssm_parameter",
            "aws_subnet",
            "aws_vpc",
            "aws_vpc_endpoint",
        ),
        *("aws_vpc_security_group_egress_rule", "aws_vpc_security_group_ingress_rule"),
        "random_password",
    }
)


@dataclass(frozen=True)
class Row:
    """One line of the summary: how many of what, dollars a month, and whether somebody checked it."""

    address: str
    what: str
    item: str
    count: int
    usd: Decimal
    checked: bool


def prices() -> dict[str, dict[str, str]]:
    """The price table by item."""
    lines = (HERE / "prices.csv").read_text().splitlines()
    table = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row["item"]: row for row in table}


def sizes(configuration: Configuration) -> dict[str, dict[str, Any]]:
    """What is said of each size, with the number of servers."""
    found = plain(configuration.locals["sizes"])
    return {name: {**found[name], "servers": configuration.locals["servers"]} for name in SIZES}


def rows(size: Size, region: str) -> list[Row]:
    """What costs by the hour or the month."""
    table = prices()
    made = []
    for cost in COSTS:
        item, count = cost.item(size), cost.count(size)
        price = table[item]
        usd = Decimal(price[region]) * _PER[price["per"]] * count
        checked = price["checked"] != TO_BE_CHECKED
        made.append(Row(cost.address, cost.what, item, count, usd, checked))
    return made


def text(region: str) -> str:
    """The whole, for people.

    Raises:
        Invalid: the table has no prices of the region.
    """
    where = region if region in REGIONS else REGIONS[0]
    configuration = Configuration.read(HERE)
    lines = [f"What would be created, US dollars a month by the prices of {where}:"]
    if where != region:
        lines.append(f"(of {region} the table has none; it has {', '.join(REGIONS)})")
    for name, size in sizes(configuration).items():
        found = rows(size, where)
        lines += ["", f"size = {name}"]
        lines += [
            f"  {row.usd:9.2f}{' ' if row.checked else '?'} {row.count:3} x {row.item:22} "
            f"{row.what} ({row.address})"
            for row in found
        ]
        lines.append(f"  {sum(row.usd for row in found):9.2f}  together, before use and taxes")
    lines += [
        "",
        "? to be checked: see deploy/terraform/prices.csv. The last word: https://calculator.aws",
    ]
    lines += ["", "By use, besides:"]
    lines += [f"  {kind}: {why}" for kind, why in sorted(BY_USE.items())]
    free = sorted(
        resource.address
        for resource in configuration.resources
        if resource.sort == "resource" and resource.type in FREE
    )
    lines += ["", f"Without a price of their own, {len(free)}:"]
    lines.append(textwrap.fill(", ".join(free), 100, initial_indent="  ", subsequent_indent="  "))
    lines += ["", "Jobs' instances come on top: `atemporal cost` and `atemporal plan` know those."]
    return "\n".join(lines)


def main(regions: list[str]) -> int:
    """Print it for a region."""
    region = regions[0] if regions else REGIONS[0]
    try:
        print(text(region))
    except Invalid as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
