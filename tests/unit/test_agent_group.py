"""A machine that has no job in its user-data, of a launch group or by claim: it shows who it is, is told
its job, and is then like any other."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from atemporal import userdata
from atemporal.model import JobSpec, Launch
from tests import callback_api
from tests.callback_api import INSTANCE_ID, CallbackApi
from tests.launches import LAUNCH
from tests.unit.test_agent import REF, TOKEN, Machine

GROUP = UUID("0198c5e0-7a11-7c3e-9d5b-2f4a6b8c0dff")
GROUP_TOKEN = "k1." + "fedcba9876543210" * 4
IDENTITY = "MIAGCSqGSIb3DQEHAqCAMIACAQEx\nDzANBglghkgBZQMEAgEFADCABgkq\n"


@pytest.fixture
def api() -> Iterator[CallbackApi]:
    with callback_api.serve() as api:
        api.identity = IDENTITY
        yield api


@pytest.fixture
def machine(tmp_path: Path, api: CallbackApi) -> Machine:
    """Its user-data is the group's; what it would be told is the manifest of a job."""
    machine = Machine(tmp_path, api)
    api.group_manifest = machine.manifest.read_bytes()
    show_group(machine, api, LAUNCH)
    return machine


def show_group(machine: Machine, api: CallbackApi, launch: Launch) -> None:
    """Give it the user-data of the group."""
    launch = launch.model_copy(update={"callback_base": api.url})
    show(machine, userdata.render_group(GROUP, launch, GROUP_TOKEN).decode())


def show(machine: Machine, rendered: str) -> None:
    content = re.search(r"encoding: base64\n *content: (\S+)\n", rendered)
    assert content
    machine.manifest.write_bytes(base64.b64decode(content[1]))


def test_it_shows_its_document_and_runs_the_job_that_it_is_told(
    machine: Machine, api: CallbackApi
) -> None:
    machine.boot()
    (asked,) = api.group_calls
    assert (asked.path, asked.token) == (f"/groups/{GROUP}/machines", GROUP_TOKEN)
    assert asked.body == {"instance_id": INSTANCE_ID, "identity": IDENTITY.replace("\n", "")}
    # From here on it is its attempt's, by its attempt's own token.
    assert api.methods == ["PUT", "PATCH", "DELETE"]
    assert {(call.path, call.token) for call in api.calls} == {
        (f"/jobs/{REF.job_id}/callback", TOKEN)
    }
    assert machine.steps == ["pull", "create", "start", "wait"]
    assert machine.record.exit_code == 7


@pytest.mark.parametrize("statuses", [[503, 200], [425, 425, 200], [429, 500, 200]])
def test_one_that_is_early_asks_again(
    machine: Machine, api: CallbackApi, statuses: list[int]
) -> None:
    api.group_statuses = list(statuses)
    machine.boot()
    assert len(api.group_calls) == len(statuses)
    assert machine.record.exit_code == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_one_that_no_job_is_for_runs_nothing(
    machine: Machine, api: CallbackApi, status: int
) -> None:
    api.group_statuses = [status]
    machine.boot()
    assert len(api.group_calls) == 1
    assert (api.calls, api.boot_calls, machine.steps) == ([], [], [])
    assert any(f"no job of group {GROUP} is for this machine" in one for one in machine.console)


def test_without_a_document_it_asks_all_the_same(machine: Machine, api: CallbackApi) -> None:
    """The API decides whether it takes that; the machine has asked EC2 five times."""
    api.identity = None
    api.group_statuses = [403]
    machine.boot()
    assert api.group_calls[0].body == {"instance_id": INSTANCE_ID, "identity": ""}
    assert machine.slept[:5] == [2.0] * 5


@pytest.mark.parametrize("manifest", [b"", b"<html>", b"image=nginx\0", b"what=ever\0"])
def test_an_answer_that_is_no_manifest_runs_nothing(
    machine: Machine, api: CallbackApi, manifest: bytes
) -> None:
    api.group_manifest = manifest
    assert machine.agent("assign") == 0
    assert [machine.agent(command) for command in ("pull", "create", "run")] == [1, 1, 1]
    assert (machine.steps, api.calls) == ([], [])


def test_one_that_gives_up_says_what_it_was_answered_last(
    machine: Machine, api: CallbackApi
) -> None:
    show_group(machine, api, LAUNCH.model_copy(update={"boot_s": 2}))
    api.group_statuses = [503] * 9
    machine.boot()
    assert (api.calls, machine.steps) == ([], [])
    assert any(f"{api.url}/groups/{GROUP}/machines answers 503" in one for one in machine.console)


def test_a_lone_one_asks_by_its_attempts_own_call_and_gets_a_large_environment_and_secrets(
    machine: Machine, api: CallbackApi
) -> None:
    launch = LAUNCH.model_copy(update={"callback_base": api.url, "delivery": "claim"})
    spec = JobSpec(
        image="busybox",
        env={f"V{n}": "x" * 50_000 for n in range(4)},
        secrets={"S": "one\ntwo 'three' \"$four\""},
        ports=(),
    )
    show(machine, userdata.render(REF, spec, launch, GROUP_TOKEN).decode())
    api.group_manifest = userdata.manifest(REF, spec, launch, TOKEN)
    machine.boot()
    (asked,) = api.group_calls
    path = f"/jobs/{REF.job_id}/attempts/{REF.number}/machine"
    assert (asked.path, asked.token) == (path, GROUP_TOKEN)
    assert machine.steps == ["pull", "create", "start", "wait"]
    created = machine.argv("create")
    for name, value in {**spec.env, "S": "one\ntwo 'three' \"$four\""}.items():
        assert f"{name}={value}" in created
