"""Faults of the twin's machines, which execute the very user-data that the product renders."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from atemporal import userdata
from atemporal.model import AttemptRef, JobSpec, Launch
from atemporal.twin import processes
from atemporal.twin.catalogue import IMAGES, programs
from atemporal.twin.faults import fault
from atemporal.twin.faults.fault import Fault
from atemporal.twin.host import Pace
from atemporal.twin.machine import curl
from atemporal.twin.server import Twin
from tests.callback_api import CallbackApi, serve
from tests.unit.test_twin_machine import client, console, describe, ended, until

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

TOKEN = "k1.0123456789abcdef"
FOR_EVER = ("sleep", "1000")
OTHER_FAMILIES = [
    one
    for one in IMAGES
    if programs(one["imageId"]) == ("cloud-init",) and one["architecture"] == "x86_64"
]


@pytest.fixture
def api() -> Iterator[CallbackApi]:
    with serve() as api:
        yield api


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    with Twin(tmp_path, engine="process", pace=Pace(kill_after_s=0.3)) as twin:
        yield twin


@pytest.fixture
def ec2(twin: Twin) -> Iterator[EC2Client]:
    ec2 = client(twin.url)
    yield ec2
    ec2.close()


def launch(
    ec2: EC2Client,
    api: CallbackApi,
    command: tuple[str, ...] = ("true",),
    *,
    capacity_type: str = "on-demand",
    deadline_s: int = 60,
    image_id: str = "ami-12345678",
) -> str:
    """Launch a job's machine as the product does; return the instance's id."""
    intent = Launch(
        image_id=image_id,
        instance_type="t3.small",
        callback_base=api.url,
        key_id="k1",
        deadline_s=deadline_s,
    )
    spec = JobSpec(image="any/image", command=command)
    spot: Any = (
        {"InstanceMarketOptions": {"MarketType": "spot"}} if capacity_type == "spot" else {}
    )
    launched = ec2.run_instances(
        ImageId=intent.image_id,
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        UserData=userdata.render(AttemptRef(uuid4(), 1), spec, intent, TOKEN).decode(),
        InstanceInitiatedShutdownBehavior="terminate",
        **spot,
    )
    return launched["Instances"][0]["InstanceId"]


def machine_of(twin_directory: Path, instance_id: str) -> Path:
    return twin_directory / "instances" / instance_id


def state(ec2: EC2Client, instance_id: str) -> str:
    return str(describe(ec2, instance_id)["State"]["Name"])


def by_itself(ec2: EC2Client, instance_id: str) -> None:
    code = ended(ec2, instance_id)["StateReason"]["Code"]
    assert code == "Client.InstanceInitiatedShutdown"


def test_without_a_rule_no_fault_is_injected(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    by_itself(ec2, launch(ec2, api))

    assert api.methods == ["PUT", "PATCH", "DELETE"]
    assert twin.faults.counts() == {}


def test_a_boot_is_slow(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("slow-boot", seconds=1, times=1)
    began = time.monotonic()
    slow = launch(ec2, api)
    until(lambda: state(ec2, slow) == "running")

    until(lambda: api.calls)

    assert time.monotonic() - began > 1
    by_itself(ec2, slow)
    assert twin.faults.counts() == {"slow-boot": 1}


def test_a_machine_never_boots(
    twin: Twin, ec2: EC2Client, api: CallbackApi, tmp_path: Path
) -> None:
    twin.faults.add("never-boots", times=1)
    dead = launch(ec2, api)
    by_itself(ec2, launch(ec2, api))

    assert state(ec2, dead) == "running"
    assert console(ec2, dead) == ""
    assert api.methods == ["PUT", "PATCH", "DELETE"], "only the other one has called"
    assert twin.faults.counts() == {"never-boots": 1}
    ec2.terminate_instances(InstanceIds=[dead])
    assert ended(ec2, dead)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_a_machine_dies_without_a_callback(
    twin: Twin, ec2: EC2Client, api: CallbackApi, tmp_path: Path
) -> None:
    victim = launch(ec2, api, FOR_EVER)
    other = launch(ec2, api, FOR_EVER)
    until(lambda: api.methods.count("PATCH") == 2)
    identity = json.loads((machine_of(tmp_path, victim) / "machine.json").read_bytes())

    twin.faults.add("dies", match={"instance": victim}, seconds=0.5)

    assert ended(ec2, victim)["StateReason"]["Code"] == "Server.InternalError"
    assert sorted(api.methods) == ["PATCH", "PATCH", "PUT", "PUT"]
    assert "atemporal-exit" not in console(ec2, victim)
    assert processes.start_time(identity["pid"]) != identity["started"]
    assert processes.family(identity["pid"], identity["started"]) == []
    assert state(ec2, other) == "running"
    assert twin.faults.counts() == {"dies": 1}
    assert twin.faults.rules() == [], "it was for that machine only"


def test_a_machine_dies_as_planned_at_its_launch(
    twin: Twin, ec2: EC2Client, api: CallbackApi
) -> None:
    twin.faults.add("dies", seconds=1)

    instance_id = launch(ec2, api, FOR_EVER)

    assert ended(ec2, instance_id)["StateReason"]["Code"] == "Server.InternalError"
    assert "DELETE" not in api.methods
    assert twin.faults.counts() == {"dies": 1}


def test_a_machine_dies_though_the_twin_was_away(tmp_path: Path, api: CallbackApi) -> None:
    pace = Pace(kill_after_s=0.3)
    twin = Twin(tmp_path, engine="process", pace=pace).start()
    ec2 = client(twin.url)
    twin.faults.add("dies", after=2, seconds=0)
    instance_id = launch(ec2, api, FOR_EVER)
    until((machine_of(tmp_path, instance_id) / "machine.json").exists)
    twin.faults.clear()
    ec2.close()
    twin.stop()

    with Twin(tmp_path, engine="process", pace=pace) as twin:
        ec2 = client(twin.url)
        assert ended(ec2, instance_id)["StateReason"]["Code"] == "Server.InternalError"
        assert twin.faults.counts() == {"dies": 1}
        ec2.close()


def test_a_network_is_away_for_a_while(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("no-network", seconds=8)
    began = time.time()

    instance_id = launch(ec2, api)

    until(lambda: api.calls)
    assert time.time() - began > 8
    by_itself(ec2, instance_id)
    assert api.methods == ["PUT", "PATCH", "DELETE"]
    assert api.body("PATCH")["instance_id"] == instance_id, "its metadata were there"
    assert twin.faults.counts() == {"no-network": 1}


def test_a_machine_without_a_network_runs_nothing_and_ends(
    twin: Twin, ec2: EC2Client, api: CallbackApi, tmp_path: Path
) -> None:
    twin.faults.add("no-network")
    ran = tmp_path / "ran"

    # Long enough that a slow machine has met its network gone before its deadline.
    instance_id = launch(ec2, api, ("touch", str(ran)), deadline_s=12)
    until(lambda: twin.faults.counts() == {"no-network": 1})

    by_itself(ec2, instance_id)
    assert api.calls == []
    assert not ran.exists()


def test_a_running_machine_loses_its_network(
    twin: Twin, ec2: EC2Client, api: CallbackApi, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    instance_id = launch(ec2, api, ("sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done"))
    until(lambda: api.calls)

    twin.faults.add("no-network", match={"instance": instance_id})
    go.touch()
    until(lambda: twin.faults.counts() == {"no-network": 1})
    # The newer rule replaces the older one's plan: the network is back when the end met it gone.
    twin.faults.add("no-network", match={"instance": instance_id}, seconds=0)

    by_itself(ec2, instance_id)
    assert api.methods == ["PUT", "PATCH", "DELETE"]


def test_an_end_is_not_called_back(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("no-callback")

    instance_id = launch(ec2, api)

    by_itself(ec2, instance_id)
    assert api.methods == ["PUT", "PATCH"]
    assert "atemporal-exit" in console(ec2, instance_id)
    assert "could not report" not in console(ec2, instance_id)
    assert twin.faults.counts() == {"no-callback": 1}


def test_callbacks_come_twice(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("twice")

    by_itself(ec2, launch(ec2, api))

    assert api.methods == [*["PUT"] * 2, *["PATCH"] * 2, *["DELETE"] * 2]
    assert api.calls[::2] == api.calls[1::2]
    assert {call.token for call in api.calls} == {TOKEN}
    assert twin.faults.counts() == {"twice": 3}


def test_callbacks_are_forged(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("forged")

    by_itself(ec2, launch(ec2, api, ("sh", "-c", "exit 3")))

    assert api.methods == [*["PUT"] * 2, *["PATCH"] * 2, *["DELETE"] * 2]
    false_claim, claim, false_end, end = api.calls[2:]
    assert claim.token == end.token == TOKEN
    assert false_claim.token == false_end.token
    assert false_claim.token != TOKEN
    assert false_claim.token.startswith("k1.")
    assert len(false_claim.token) == len(TOKEN)
    assert false_claim.body["claim"] != claim.body["claim"] == end.body["claim"]
    assert (false_end.body["exit_code"], end.body["exit_code"]) == (99, 3)
    assert twin.faults.counts() == {"forged": 3}


def test_a_token_among_the_arguments_is_forged_too(tmp_path: Path, api: CallbackApi) -> None:
    directory = tmp_path / "instances/i-1"
    directory.mkdir(parents=True)
    (tmp_path / "faults").mkdir()
    fault.write(directory, {"forged": Fault("forged", "f1", begins_at=0)})
    program = tmp_path / "curl"
    program.write_text(curl.script(directory, shutil.which("curl") or ""))
    program.chmod(0o755)
    words = ["-s", "-X", "PATCH", "-H", f"Authorization: Bearer {TOKEN}", "-d", '{"claim": "c"}']

    subprocess.run([program, *words, f"{api.url}/callback"], check=True, timeout=30)

    assert [call.token == TOKEN for call in api.calls] == [False, True]
    assert [call.body["claim"] == "c" for call in api.calls] == [False, True]


def test_one_machine_has_several_faults(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("twice")
    twin.faults.add("no-callback")
    twin.faults.add("slow-boot", seconds=0.1)
    twin.faults.add("slow-boot", seconds=1000)

    by_itself(ec2, launch(ec2, api))

    assert api.methods == ["PUT", "PUT", "PATCH", "PATCH"]
    assert twin.faults.counts() == {"no-callback": 1, "slow-boot": 1, "twice": 2}


def test_a_machine_hangs_until_it_is_terminated(
    twin: Twin, ec2: EC2Client, api: CallbackApi
) -> None:
    twin.faults.add("hangs")

    # Not even the deadline can end it.
    instance_id = launch(ec2, api, deadline_s=1)

    until(lambda: twin.faults.counts() == {"hangs": 1})
    assert "Power down" in console(ec2, instance_id)
    assert state(ec2, instance_id) == "running"
    ec2.terminate_instances(InstanceIds=[instance_id])
    assert ended(ec2, instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_cloudinit_hangs_after_its_first_command_and_the_job_runs(
    twin: Twin, ec2: EC2Client, api: CallbackApi
) -> None:
    twin.faults.add("cloudinit-hangs")
    instance_id = launch(ec2, api)

    by_itself(ec2, instance_id)

    assert api.methods == ["PUT", "PATCH", "DELETE"]
    assert twin.faults.counts() == {"cloudinit-hangs": 1}
    assert "all commands are carried out" not in console(ec2, instance_id)


def test_cloudinit_hangs_and_the_deadline_ends_the_machine(
    twin: Twin, ec2: EC2Client, api: CallbackApi
) -> None:
    twin.faults.add("cloudinit-hangs")
    instance_id = launch(ec2, api, FOR_EVER, deadline_s=2)

    by_itself(ec2, instance_id)

    assert "atemporal-deadline.service ended" in console(ec2, instance_id)


@pytest.mark.parametrize("image", OTHER_FAMILIES, ids=lambda image: image["name"])
def test_a_machine_of_another_family_powers_off_and_runs_no_job(
    ec2: EC2Client, api: CallbackApi, image: dict[str, Any]
) -> None:
    instance_id = launch(ec2, api, FOR_EVER, image_id=image["imageId"])

    by_itself(ec2, instance_id)

    assert api.calls == []
    assert "this image is not Flatcar" in console(ec2, instance_id)


def test_another_family_never_ends_by_a_user_data_that_does_not_think_of_it(
    ec2: EC2Client,
) -> None:
    launched = ec2.run_instances(
        ImageId=OTHER_FAMILIES[0]["imageId"],
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        UserData="#cloud-config\ncoreos: {units: [{name: a.service, command: start}]}\n",
    )
    instance_id = launched["Instances"][0]["InstanceId"]

    until(lambda: "cloud-init: coreos is not applied" in console(ec2, instance_id))
    assert state(ec2, instance_id) == "running"


def test_a_machine_hangs_for_a_while(twin: Twin, ec2: EC2Client, api: CallbackApi) -> None:
    twin.faults.add("hangs", seconds=0.5)
    instance_id = launch(ec2, api)
    until(lambda: twin.faults.counts() == {"hangs": 1})
    began = time.monotonic()

    by_itself(ec2, instance_id)

    assert time.monotonic() - began > 0.3


def metadata(twin: Twin, instance_id: str, path: str) -> tuple[int, str]:
    base = f"{twin.url}/imds/{instance_id}/latest"
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    ask = urllib.request.Request(f"{base}/api/token", headers=ttl, method="PUT")
    try:
        with urllib.request.urlopen(ask) as response:
            headers = {"X-aws-ec2-metadata-token": response.read().decode()}
        wanted = urllib.request.Request(f"{base}/meta-data/{path}", headers=headers)
        with urllib.request.urlopen(wanted) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_a_spot_instance_is_interrupted_with_notice(
    twin: Twin, ec2: EC2Client, api: CallbackApi
) -> None:
    twin.faults.add("spot-interruption", after=2, seconds=3)
    spot = launch(ec2, api, FOR_EVER, capacity_type="spot")
    assert metadata(twin, spot, "spot/instance-action") == (404, "")
    assert twin.faults.counts() == {}
    on_demand = launch(ec2, api, FOR_EVER)

    until(lambda: metadata(twin, spot, "spot/instance-action")[0] == 200)

    notice = json.loads(metadata(twin, spot, "spot/instance-action")[1])
    left = datetime.fromisoformat(notice["time"]) - datetime.now(UTC)
    assert notice["action"] == "terminate"
    assert notice["time"].endswith("Z")
    assert 0 < left.total_seconds() <= 3
    assert state(ec2, spot) == "running"
    assert ended(ec2, spot)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert state(ec2, on_demand) == "running"
    assert metadata(twin, on_demand, "spot/instance-action") == (404, "")
    assert twin.faults.counts() == {"spot-interruption": 1}


def test_an_interruption_is_orderly(tmp_path: Path, api: CallbackApi) -> None:
    # Long enough for its report on a host with other work: one that is killed has none.
    with Twin(tmp_path, engine="process", pace=Pace(kill_after_s=60)) as patient:
        ec2 = client(patient.url)
        instance_id = launch(ec2, api, FOR_EVER, capacity_type="spot")
        # Not at its claim: a machine that ends before it knows the answer has nothing to report.
        phase = machine_of(tmp_path, instance_id) / "root/run/atemporal/phase"
        until(lambda: phase.exists() and phase.read_text() == "run\n")

        patient.faults.add("spot-interruption", match={"instance": instance_id}, seconds=0)

        assert ended(ec2, instance_id)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
        assert api.methods == ["PUT", "PATCH", "DELETE"]
        assert "the power button" in console(ec2, instance_id)
        ec2.close()


def test_the_journal_has_the_fault_and_its_machine(
    twin: Twin, ec2: EC2Client, api: CallbackApi
) -> None:
    rule = twin.faults.add("no-callback", probability=1, times=1)
    by_itself(ec2, first := launch(ec2, api))
    by_itself(ec2, launch(ec2, api))

    [entry] = twin.faults.journal.recent()

    assert (entry["kind"], entry["rule"], entry["instance"]) == ("no-callback", rule.id, first)
    assert api.methods == ["PUT", "PATCH", "PUT", "PATCH", "DELETE"]
