"""Secrets by reference: the machine has AWS's value, byte for byte, and nobody else has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from atemporal import userdata
from atemporal.model import Launch, parse_spec
from atemporal.states import Reason
from tests import callback_api
from tests.callback_api import CREDENTIALS, REGION, CallbackApi
from tests.signature import signed
from tests.unit.test_agent import REF, TOKEN, Machine

VALUES = [
    "simple",
    "two\nlines\n",
    " blanks \t and a tab ",
    "\\n \\u0041 \\\\ \\/ \" ' $HOME `id` %s & ; \\x41 \\",
    '{"user": "a", "password": "b\\"c"}',
    '"Value":"another"',
    "grüße, 漢字, 😀, \u2028, \x7f, \x01, \x1b[0m",
    "-----BEGIN PRIVATE KEY-----\n" + "A" * 3000 + "\n-----END PRIVATE KEY-----\n",
]


@pytest.fixture
def api() -> Iterator[CallbackApi]:
    with callback_api.serve() as api:
        api.role = "jobs"
        yield api


@pytest.fixture
def machine(tmp_path: Path, api: CallbackApi) -> Machine:
    machine = Machine(tmp_path, api)
    machine.environment["AWS_AT"] = f"{api.url}/aws/"
    return machine


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The services that have secrets, as moto has them."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def ordered(machine: Machine, capacity_type: Any = "on-demand", **references: str) -> None:
    """Tell the machine a job with such references, as one is why by claim."""
    spec = parse_spec(
        {"image": "nginx", "ports": [], "env": {"A": "1"}, "secret_refs": references}
    )
    launch = Launch(
        image_id="ami-1",
        instance_type="t3.small",
        callback_base=machine.api.url,
        key_id="k1",
        deadline_s=600,
        capacity_type=capacity_type,
    )
    machine.manifest.write_bytes(userdata.manifest(REF, spec, launch, TOKEN))


def variables(machine: Machine) -> dict[str, str]:
    """The environment that the container was made with."""
    words = machine.argv("create")
    given = [words[at + 1] for at, word in enumerate(words) if word == "-e"]
    return dict(one.split("=", 1) for one in given)


@pytest.mark.parametrize("service", ["ssm", "secretsmanager"])
def test_a_value_of_any_kind_is_the_containers_byte_for_byte(
    machine: Machine, aws: str, service: str
) -> None:
    client = boto3.client(
        service,
        region_name=REGION,
        endpoint_url=aws,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    for number, value in enumerate(VALUES):
        if service == "ssm":
            client.put_parameter(Name=f"/jobs/{number}", Value=value, Type="SecureString")
        else:
            client.create_secret(Name=f"/jobs/{number}", SecretString=value)
    machine.environment["AWS_AT"] = aws
    ordered(machine, **{f"V{n}": f"{service}:/jobs/{n}" for n in range(len(VALUES))})
    machine.boot()
    assert machine.record.exit_code == 7
    assert variables(machine) == {"A": "1", **{f"V{n}": one for n, one in enumerate(VALUES)}}
    arguments = (machine.bin / "curl.argv").read_text()
    kept = [arguments, "\n".join(machine.console), repr(machine.api.calls)]
    assert not any("PRIVATE KEY" in one or "simple" in one for one in kept)


def test_a_version_and_an_arn_name_it_too(machine: Machine, aws: str) -> None:
    ssm = boto3.client(
        "ssm",
        region_name=REGION,
        endpoint_url=aws,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    for value in ("first", "second"):
        ssm.put_parameter(Name="/versions", Value=value, Type="SecureString", Overwrite=True)
    manager = boto3.client(
        "secretsmanager",
        region_name="us-west-2",
        endpoint_url=aws,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    arn = manager.create_secret(Name="there", SecretString="another Region's")["ARN"]
    machine.environment["AWS_AT"] = aws
    ordered(machine, OLD="ssm:/versions:1", NEW="ssm:/versions", FAR=f"secretsmanager:{arn}")
    machine.boot()
    got = variables(machine)
    assert (got["OLD"], got["NEW"], got["FAR"]) == ("first", "second", "another Region's")
    assert "https://secretsmanager.us-west-2.amazonaws.com/" in (
        (machine.bin / "curl.argv").read_text().splitlines()
    )


def test_a_value_as_large_as_aws_keeps_is_taken(machine: Machine, api: CallbackApi) -> None:
    value = ('é"\\\n' * 16_384)[:32_768]
    api.aws = [(200, json.dumps({"ARN": "a", "SecretString": value}, ensure_ascii=False))]
    ordered(machine, LARGE="secretsmanager:large")
    machine.boot()
    assert variables(machine)["LARGE"] == value


def test_it_is_asked_for_in_the_name_of_the_role(machine: Machine, api: CallbackApi) -> None:
    api.aws = [(200, '{"Parameter": {"ARN": "a", "Value": "hush"}}')]
    ordered(machine, TOKEN="ssm:/team/token")
    machine.boot()
    ((headers, body),) = api.aws_calls
    assert json.loads(body) == {"Name": "/team/token", "WithDecryption": True}
    assert headers["X-Amz-Target"] == "AmazonSSM.GetParameter"
    assert headers["Authorization"] == signed("ssm", f"{api.url}/aws/", headers, body)
    arguments = (machine.bin / "curl.argv").read_text()
    assert CREDENTIALS["SecretAccessKey"] not in arguments
    assert variables(machine)["TOKEN"] == "hush"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ('{"__type":"ParameterNotFound"}', "ParameterNotFound"),
        ('{"__type":"ParameterVersionNotFound","message":""}', "ParameterVersionNotFound"),
        (
            '{"__type":"com.amazonaws.secretsmanager#ResourceNotFoundException","Message":"Not it."}',
            "ResourceNotFoundException: Not it.",
        ),
        (
            '{"__type": "AccessDeniedException", "Message": "jobs is not authorized"}',
            "AccessDeniedException: jobs is not authorized",
        ),
        ('{"__type":"ValidationException","message":"m"}', "ValidationException: m"),
        (
            '{"__type":"com.amazonaws.ssm_v2#ParameterNotFound","message":"m"}',
            "ParameterNotFound: m",
        ),
        ('{"message":"m","__type":"OptInRequired"}', "OptInRequired: m"),
        ('{"__type" : "KMSInvalidStateException"\n}', "KMSInvalidStateException"),
        ('{"ARN":"a","SecretBinary":"aGk="}', "it is no text"),
        ('{"Parameter":{"ARN":"a","Value":"a\\u0000b"}}', "it is no text"),
    ],
)
def test_what_can_not_be_had_ends_the_job_before_its_container(
    machine: Machine, api: CallbackApi, error: str, why: str
) -> None:
    api.aws = [(400, error)]
    ordered(machine, TOKEN="ssm:/team/token")
    machine.boot()
    assert machine.steps == ["pull"]
    assert machine.record.reason is Reason.CREATE_FAILED
    log = machine.record.log_tail.decode()
    assert log.startswith("secret TOKEN=ssm:/team/token: ")
    assert why in log
    assert len(api.aws_calls) == 1
    assert machine.slept == []


@pytest.mark.parametrize(
    "trouble",
    [
        (400, '{"__type":"ThrottlingException","message":"Rate exceeded"}'),
        (400, '{"__type":"UnrecognizedClientException"}'),
        (500, '{"__type":"InternalServerError"}'),
        (503, "<html>"),
        (200, ""),
    ],
)
def test_aws_in_trouble_is_asked_again(
    machine: Machine, api: CallbackApi, trouble: tuple[int, str]
) -> None:
    api.aws = [trouble, trouble, (200, '{"Parameter":{"ARN":"a","Value":"hush"}}')]
    ordered(machine, TOKEN="ssm:/team/token")
    machine.boot()
    assert variables(machine)["TOKEN"] == "hush"
    assert machine.record.exit_code == 7
    first, second, *_ = machine.slept
    assert 0.5 <= first <= 1.5
    assert 1 <= second <= 3


def test_what_is_not_had_for_long_is_tried_on_another_machine(
    machine: Machine, api: CallbackApi
) -> None:
    api.aws = [(503, "")]
    ordered(machine, TOKEN="ssm:/team/token")
    machine.boot()
    assert machine.record.reason is Reason.PULL_FAILED
    why = "secret TOKEN=ssm:/team/token: AWS answers nothing that can be read"
    assert machine.record.log_tail.decode().strip() == why
    assert f"atemporal: {why}" in machine.console
    assert 45 <= sum(machine.slept) <= 135
    assert machine.steps == ["pull"]


def test_a_role_has_a_minute_to_come_and_without_one_that_is_final(
    machine: Machine, api: CallbackApi
) -> None:
    api.role = None
    ordered(machine, TOKEN="ssm:/team/token")
    machine.boot()
    assert machine.record.reason is Reason.CREATE_FAILED
    assert b"the instance has no role" in machine.record.log_tail
    assert 30 <= sum(machine.slept) <= 135


def test_after_a_long_pull_it_gives_up_before_the_reaper_does(
    machine: Machine, api: CallbackApi
) -> None:
    api.aws = [(503, "")]
    ordered(machine, TOKEN="ssm:/team/token")
    assert machine.agent("pull") == 0
    (machine.root / "run/atemporal/end").write_text("1\n")
    assert machine.agent("create") == 1
    # A tenth of the reaper's time is kept for what follows: 13 s of 133.
    assert sum(machine.slept) <= 13


def test_a_spot_instance_that_is_taken_back_meanwhile_is_no_fault_of_aws(
    machine: Machine, api: CallbackApi
) -> None:
    api.aws, api.takes_spot_back = [(503, "")], True
    ordered(machine, capacity_type="spot", TOKEN="ssm:/team/token")
    machine.boot()
    assert machine.record.reason is Reason.SPOT_INTERRUPTED
    assert machine.steps == ["pull"]


FLAT = {"user": "a", "pass word": 'b"c\\', "port": 5432, "tls": True, "no": None, 'x":"y': "trap"}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (json.dumps(FLAT), "user", "a"),
        (json.dumps(FLAT, indent=2), "port", "5432"),
        (json.dumps(FLAT), "tls", "true"),
        (
            json.dumps({"trap": '"password":"wrong",', "password": "grüße\n😀"}),
            "password",
            "grüße\n😀",
        ),
        (json.dumps({"password": "first", "other": {"password": "inner"}}), "password", "first"),
    ],
)
def test_one_field_of_an_object_is_taken_as_it_is(
    machine: Machine, api: CallbackApi, text: str, name: str, value: str
) -> None:
    api.aws = [(200, json.dumps({"ARN": "a", "SecretString": text}))]
    ordered(machine, TOKEN=f"secretsmanager:rds!db-1#{name}")
    machine.boot()
    assert variables(machine)["TOKEN"] == value
    ((_, body),) = api.aws_calls
    assert json.loads(body) == {"SecretId": "rds!db-1"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(FLAT),
        '{"other": {"password": "inner"}}',
        "no object",
        "[]",
        "{}",
        '{"password":null}',
    ],
)
def test_a_field_that_is_not_there_ends_the_job_and_shows_nothing(
    machine: Machine, api: CallbackApi, text: str
) -> None:
    api.aws = [(200, json.dumps({"ARN": "a", "SecretString": text}))]
    ordered(machine, TOKEN="secretsmanager:a#password")
    machine.boot()
    assert machine.record.reason is Reason.CREATE_FAILED
    log = machine.record.log_tail.decode()
    assert "it has no field password" in log
    assert "inner" not in log
    assert machine.steps == ["pull"]


def test_more_than_a_program_can_start_with_is_named(machine: Machine, api: CallbackApi) -> None:
    api.aws = [(200, json.dumps({"ARN": "a", "SecretString": "x" * 65_536}))]
    ordered(machine, **{f"V{n}": "secretsmanager:large" for n in range(20)})
    machine.boot()
    assert machine.record.reason is Reason.CREATE_FAILED
    assert b"more than 1 MiB" in machine.record.log_tail
    assert len(api.aws_calls) == 17
