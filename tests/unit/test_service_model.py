"""What is left of botocore's description of EC2 is what is called, and all of what is called."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore import xform_name
from botocore.session import get_session

import atemporal.cloud
from atemporal.cloud import service_model
from atemporal.cloud.service_model import INSPECTED, OPERATIONS, asked_endpoints, narrowed

DATA = Path(botocore.__file__).parent / "data"
CLIENTS = {"_ec2", "_launching"}
OF_ANY_CLIENT = {"close", "get_paginator", "meta", "exceptions"}


def called() -> set[str]:
    """The calls that the sources make, by a client's method or a paginator."""
    found: set[str] = set()
    for path in Path(atemporal.cloud.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Attribute(attr=client), attr=method):
                    if client in CLIENTS and method not in OF_ANY_CLIENT:
                        found.add(method)
                case ast.Call(
                    func=ast.Attribute(attr="get_paginator"), args=[ast.Constant(value=name)]
                ):
                    found.add(str(name))
    return found


def test_the_list_of_calls_has_each_that_is_made_and_no_other() -> None:
    assert called() <= {xform_name(name) for name in (*OPERATIONS, *INSPECTED)}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    *_, packed = sorted((DATA / "ec2").glob("*/service-2.json.gz"))
    model: dict[str, Any] = json.loads(gzip.decompress(packed.read_bytes()))
    return model


def test_what_is_kept_is_as_it_was_and_complete(whole: dict[str, Any]) -> None:
    kept = narrowed(json.dumps(whole))
    assert kept["metadata"] == whole["metadata"]
    assert kept["operations"].keys() == set(OPERATIONS)
    for part in ("operations", "shapes"):
        assert all(whole[part][name] == value for name, value in kept[part].items())
    named = set(service_model._shapes_in([kept["operations"], kept["shapes"]]))
    assert named == kept["shapes"].keys()
    assert len(kept["shapes"]) < len(whole["shapes"]) / 10


@pytest.mark.parametrize("indent", [None, 2])
def test_spaces_change_nothing(whole: dict[str, Any], indent: int | None) -> None:
    assert narrowed("\n" + json.dumps(whole, indent=indent)) == narrowed(json.dumps(whole))


def test_endpoints_of_the_services_that_are_asked_are_kept_in_each_partition() -> None:
    text = (DATA / "endpoints.json").read_text()
    whole, kept = json.loads(text), asked_endpoints(text)
    assert kept.keys() == whole.keys()
    for before, after in zip(whole["partitions"], kept["partitions"], strict=True):
        services = after["services"]
        assert services == {name: before["services"][name] for name in services}
        assert {**after, "services": 0} == {**before, "services": 0}
    assert kept["partitions"][0]["services"].keys() >= {"ec2", "sqs", "sts"}


@pytest.mark.parametrize(
    ("service", "region"),
    [
        ("ec2", "us-east-1"),
        ("ec2", "cn-north-1"),
        ("sqs", "eu-central-1"),
        ("sts", "us-gov-west-1"),
    ],
)
def test_a_client_speaks_to_the_same_endpoint(
    service: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    usual, ours = (
        made.create_client(service, region_name=region)
        for made in (get_session(), service_model.session())
    )
    assert ours.meta.endpoint_url == usual.meta.endpoint_url
    assert ours.meta.service_model.signing_name == usual.meta.service_model.signing_name
    for client in (usual, ours):
        client.close()
