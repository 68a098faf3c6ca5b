"""The agent opens a private registry: with what it was told, or for ECR with its role's pass."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from atemporal.model import JobSpec
from tests import callback_api
from tests.callback_api import CREDENTIALS, CallbackApi
from tests.signature import signed
from tests.unit.test_agent import Machine

PASS = b64encode(b"AWS:a-long-token").decode()
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture
def api() -> Iterator[CallbackApi]:
    with callback_api.serve() as api:
        yield api


@pytest.fixture
def machine(tmp_path: Path, api: CallbackApi) -> Machine:
    machine = Machine(tmp_path, api)
    machine.environment["AWS_AT"] = f"{api.url}/ecr/"
    return machine


def ordered(machine: Machine, image: str, auth: str | None = None) -> None:
    """Order a job of that image, with what opens its registry."""
    machine.order(JobSpec(image=image, ports=()))
    if auth:
        with machine.manifest.open("ab") as manifest:
            manifest.write(f"auth={auth}\0".encode())


def shown(machine: Machine) -> list[dict[str, object]]:
    """What docker's client was given for each pull."""
    path = machine.docker / "config.json"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("registry.example.com:5000/team/app:1", "registry.example.com:5000"),
        ("busybox", "https://index.docker.io/v1/"),
        (f"{ECR}/app", ECR),
    ],
)
def test_what_it_was_told_is_shown_to_that_registry_alone(
    machine: Machine, api: CallbackApi, image: str, host: str
) -> None:
    ordered(machine, image, PASS)
    machine.boot()
    assert shown(machine) == [{"auths": {host: {"auth": PASS}}}]
    assert machine.record.exit_code == 7
    assert api.ecr_calls == []
    assert not (machine.root / "run/atemporal/docker").exists(), "nothing of it stays"


def test_a_public_image_is_pulled_as_whoever_the_machine_is(
    machine: Machine, api: CallbackApi
) -> None:
    api.role = "jobs"
    ordered(machine, "registry.example.com/app")
    machine.boot()
    assert shown(machine) == []
    assert machine.record.exit_code == 7


def test_for_ecr_the_role_of_the_instance_gets_a_pass(machine: Machine, api: CallbackApi) -> None:
    api.role, api.ecr = "jobs", [(200, PASS)]
    ordered(machine, f"{ECR}/team/app:1")
    machine.boot()
    assert shown(machine) == [{"auths": {ECR: {"auth": PASS}}}]
    assert machine.record.exit_code == 7
    ((headers, body),) = api.ecr_calls
    assert body == b"{}"
    target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
    assert headers["X-Amz-Target"] == target
    assert headers["X-Amz-Security-Token"] == CREDENTIALS["Token"]
    assert headers["Authorization"] == signed("ecr", f"{api.url}/ecr/", headers, body)
    arguments = (machine.bin / "curl.argv").read_text()
    assert "https://api.ecr.eu-central-1.amazonaws.com" in arguments.splitlines()
    assert CREDENTIALS["SecretAccessKey"] not in arguments
    assert CREDENTIALS["Token"] not in arguments


@pytest.mark.parametrize(
    "trouble",
    [
        (200, ""),
        (500, "ServerException"),
        (503, "ServiceUnavailable"),
        (400, "ThrottlingException"),
        (403, "InvalidSignatureException"),
    ],
)
def test_an_ecr_in_trouble_is_asked_again(
    machine: Machine, api: CallbackApi, trouble: tuple[int, str]
) -> None:
    api.role, api.ecr = "jobs", [trouble, (200, PASS)]
    ordered(machine, f"{ECR}/team/app:1")
    machine.say(pull_fails="no basic auth credentials")
    machine.boot()
    assert len(api.ecr_calls) == 2
    # Without its pass nothing follows from a refusal; with it, that it is final.
    assert machine.steps == ["pull"] * 2
    assert machine.record.definite


@pytest.mark.parametrize("error", ["AccessDeniedException", "UnrecognizedClientException"])
def test_a_role_that_may_not_is_final_at_once(
    machine: Machine, api: CallbackApi, error: str
) -> None:
    api.role, api.ecr = "jobs", [(400, error)]
    ordered(machine, f"{ECR}/team/app:1")
    machine.say(pull_fails="no basic auth credentials")
    machine.boot()
    assert machine.steps == ["pull"]
    assert machine.record.definite
    assert len(api.ecr_calls) == 1


def test_a_role_has_a_minute_to_come_and_without_one_that_is_final(
    machine: Machine, api: CallbackApi
) -> None:
    ordered(machine, f"{ECR}/team/app:1")
    machine.say(pull_fails="no basic auth credentials")
    machine.boot()
    assert machine.steps == ["pull"] * 7
    assert 60 <= sum(machine.slept) < 90
    assert machine.record.definite
    assert api.ecr_calls == []


def test_what_opens_it_is_gone_from_the_machine_once_the_image_is_there(
    machine: Machine, api: CallbackApi
) -> None:
    ordered(machine, "registry.example.com/app", PASS)
    # As a machine that was told its job by claim has it.
    own = machine.root / "run/atemporal/manifest"
    own.parent.mkdir(parents=True, exist_ok=True)
    whole = machine.manifest.read_bytes()
    own.write_bytes(whole)
    assert machine.agent("pull") == 0
    assert shown(machine) == [{"auths": {"registry.example.com": {"auth": PASS}}}]
    assert own.read_bytes() == whole.replace(f"auth={PASS}\0".encode(), b"")
    assert machine.agent("create") == 0
