"""The twin's own endpoint, beside EC2's API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atemporal.twin.server import Twin
from tests.unit.test_twin_api import Clock
from tests.unit.test_twin_faults import UNKNOWN, failures, started

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Twin, EC2Client]]:
    with started(tmp_path, Clock()) as both:
        yield both


@pytest.fixture
def twin(both: tuple[Twin, EC2Client]) -> Twin:
    return both[0]


@pytest.fixture
def ec2(both: tuple[Twin, EC2Client]) -> EC2Client:
    return both[1]


def ask(twin: Twin, method: str, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{twin.url}/_twin/{path}", data, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_twins_own_endpoint(twin: Twin, ec2: EC2Client) -> None:
    asked = {"kind": "throttle", "call": "DescribeImages", "times": 2}
    status, added = ask(twin, "POST", "faults", asked)
    assert (status, added["id"], added["times"]) == (201, "f1", 2)
    ask(twin, "POST", "faults", {"kind": "capacity", "match": {"market": "spot"}})
    failures(ec2.describe_images)

    status, found = ask(twin, "GET", "faults")
    assert status == 200
    assert found["injected"] == {"throttle": 1}
    assert [(one["kind"], one["used"]) for one in found["rules"]] == [
        ("throttle", 1),
        ("capacity", 0),
    ]
    assert found["rules"][1]["match"] == {"capacity_type": "spot"}, "market is an alias"
    [call] = ask(twin, "GET", "calls")[1]["calls"]
    assert (call["action"], call["code"], call["fault"], call["rule"]) == (
        "DescribeImages",
        "RequestLimitExceeded",
        "throttle",
        "f1",
    )
    [injected] = ask(twin, "GET", "injected")[1]["injected"]
    assert (injected["kind"], injected["rule"], injected["call"]) == (
        "throttle",
        "f1",
        "DescribeImages",
    )

    assert ask(twin, "DELETE", "faults/f1") == (200, {})
    assert ask(twin, "DELETE", "faults/f1")[0] == 404
    assert [rule.kind for rule, _ in twin.faults.rules()] == ["capacity"]
    assert ask(twin, "DELETE", "faults") == (200, {})
    assert failures(ec2.describe_images) == [False]
    assert ask(twin, "GET", "faults")[1]["injected"] == {"throttle": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults", {"kind": "gremlins"}, 400),
        ("POST", "faults", ["throttle"], 400),
        ("POST", "faults", {}, 400),
        ("POST", "faults", {"kind": "dies", "match": {"instance": UNKNOWN}}, 404),
        ("GET", "nonsense", None, 404),
        ("DELETE", "calls", None, 404),
    ],
)
def test_the_twins_own_endpoint_refuses_nonsense(
    twin: Twin, method: str, path: str, body: object, status: int
) -> None:
    refused, found = ask(twin, method, path, body)

    assert refused == status
    assert found["error"]
