"""Machines: how a user-data is executed, how they end, and that nothing of them stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml

from atemporal.twin import processes
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

PACKAGE_PARENT = Path(__file__).parents[2]
PATIENCE_S = 30.0


def client(url: str) -> EC2Client:
    ec2: EC2Client = boto3.client(
        "ec2",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    return ec2


def cloud_config(*units: tuple[str, str], files: dict[str, str] | None = None) -> str:
    """A user-data that starts units in order."""
    entries = [{"name": name, "content": text, "command": "start"} for name, text in units]
    written = [
        {"path": path, "content": text, "permissions": "0755"}
        for path, text in (files or {}).items()
    ]
    return "#cloud-config\n" + yaml.safe_dump(
        {"write_files": written, "coreos": {"units": entries}}
    )


def launch(ec2: EC2Client, user_data: str, behaviour: Any = "terminate") -> str:
    launched = ec2.run_instances(
        ImageId="ami-12345678",
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        UserData=user_data,
        InstanceInitiatedShutdownBehavior=behaviour,
    )
    return launched["Instances"][0]["InstanceId"]


def describe(ec2: EC2Client, instance_id: str) -> Any:
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def until(condition: Callable[[], Any]) -> Any:
    """The machine is another process: ask until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)
    return value


def ended(ec2: EC2Client, instance_id: str, state: str = "terminated") -> Any:
    def there() -> Any:
        instance = describe(ec2, instance_id)
        return instance if instance["State"]["Name"] == state else None

    return until(there)


def booted(ec2: EC2Client, instance_id: str) -> None:
    until(lambda: "all commands are carried out" in console(ec2, instance_id))


def console(ec2: EC2Client, instance_id: str) -> str:
    return ec2.get_console_output(InstanceId=instance_id)["Output"]


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    with Twin(tmp_path / "twin", engine="process") as twin:
        yield twin


@pytest.fixture
def ec2(twin: Twin) -> Iterator[EC2Client]:
    ec2 = client(twin.url)
    yield ec2
    ec2.close()


JOB = """
[Unit]
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=exec
ExecStartPre=/opt/print first
ExecStartPre=/bin/true
ExecStart=/opt/print second
ExecStopPost=/opt/print last
"""
PRINT = """#!/bin/sh
echo "$*: [$SERVICE_RESULT] $ATEMPORAL_ROOT" >>"$ATEMPORAL_ROOT/dev/console"
[ "$1" != second ] || exit 7
"""


def service(command: str, *, action: str = "", more: str = "") -> str:
    """A unit that runs a command; with an action the machine powers off when it ends."""
    actions = f"[Unit]\nSuccessAction={action}\nFailureAction={action}\n" if action else ""
    return f"{actions}[Service]\nType=exec\nExecStart={command}\n{more}"


def test_a_user_data_runs_as_systemd_would_run_it(ec2: EC2Client) -> None:
    instance_id = launch(ec2, cloud_config(("job.service", JOB), files={"/opt/print": PRINT}))

    instance = ended(ec2, instance_id)

    assert instance["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    printed = [line for line in console(ec2, instance_id).splitlines() if "/root" in line]
    assert [line.rpartition(" ")[0] for line in printed] == [
        *("first: []", "second: []", "last: [exit-code]"),
    ]


def test_a_failed_preparation_skips_the_main_process(ec2: EC2Client) -> None:
    unit = JOB.replace("/bin/true", "/bin/false")
    instance_id = launch(ec2, cloud_config(("job.service", unit), files={"/opt/print": PRINT}))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "last: [exit-code]" in output
    assert "second" not in output


def test_a_preparation_that_is_killed_has_failed(ec2: EC2Client) -> None:
    killed = "#!/bin/sh\nkill -TERM $$\n"
    unit = JOB.replace("/bin/true", "/opt/killed")
    files = {"/opt/print": PRINT, "/opt/killed": killed}
    instance_id = launch(ec2, cloud_config(("job.service", unit), files=files))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "last: [signal]" in output
    assert "second" not in output


def test_what_the_main_process_leaves_behind_ends_before_what_runs_at_the_end(
    ec2: EC2Client,
) -> None:
    # It ends in order when it is asked to, and takes its time.
    left = """#!/bin/sh
    trap 'sleep 0.3; echo "left: [] ended" >>"$ATEMPORAL_ROOT/dev/console"; exit' TERM
    touch "$ATEMPORAL_ROOT/ready"
    while :; do sleep 0.02; done
    """
    start = """#!/bin/sh
    "$ATEMPORAL_ROOT/opt/left" &
    until [ -e "$ATEMPORAL_ROOT/ready" ]; do sleep 0.02; done
    """
    unit = JOB.replace("/opt/print second", "/opt/start")
    files = {"/opt/print": PRINT, "/opt/left": left, "/opt/start": start}
    instance_id = launch(ec2, cloud_config(("job.service", unit), files=files))

    ended(ec2, instance_id)

    lines = [
        line.partition("]")[0] for line in console(ec2, instance_id).splitlines() if ": [" in line
    ]
    assert lines == ["first: [", "left: [", "last: [success"]


def test_nothing_is_started_after_a_forced_power_off(ec2: EC2Client) -> None:
    # This one ends when the job is in its preparation.
    off = service("/opt/await-first", action="poweroff-force")
    await_first = '#!/bin/sh\nuntil [ -e "$ATEMPORAL_ROOT/first" ]; do sleep 0.02; done\n'
    first = '#!/bin/sh\ntouch "$ATEMPORAL_ROOT/first"\nsleep 1000\n'
    job = JOB.replace("/bin/true", "/opt/first")
    files = {"/opt/print": PRINT, "/opt/await-first": await_first, "/opt/first": first}
    units = (("off.service", off), ("job.service", job))
    instance_id = launch(ec2, cloud_config(*units, files=files))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "first: []" in output
    assert "Powering off by force: off.service ended" in output
    assert "last" not in output
    assert "second" not in output


def test_the_metadata_service_knows_the_instance_and_wants_a_token(ec2: EC2Client) -> None:
    ask = """#!/bin/sh
    exec >>"$ATEMPORAL_ROOT/dev/console"
    curl -s -o /dev/null -w 'bare %{http_code}\\n' "$ATEMPORAL_METADATA_URL/latest/meta-data/instance-id"
    token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
        "$ATEMPORAL_METADATA_URL/latest/api/token")
    curl -s -H "X-aws-ec2-metadata-token: $token" \
        -w ' %{http_code}\\n' "$ATEMPORAL_METADATA_URL/latest/meta-data/instance-id"
    """
    unit = service("/opt/ask", action="poweroff")
    instance_id = launch(ec2, cloud_config(("ask.service", unit), files={"/opt/ask": ask}))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "bare 401\n" in output
    assert f"{instance_id} 200\n" in output


def test_a_start_that_takes_too_long_fails(ec2: EC2Client) -> None:
    unit = JOB.replace("/bin/true", "/bin/sleep 1000") + "TimeoutStartSec=0.3\n"
    instance_id = launch(ec2, cloud_config(("job.service", unit), files={"/opt/print": PRINT}))

    ended(ec2, instance_id)

    assert "last: [timeout]" in console(ec2, instance_id)


def test_what_is_not_modelled_is_on_the_console(ec2: EC2Client) -> None:
    limited = service("/bin/true", more="MemoryMax=1G\n")
    timer = "[Timer]\nOnBootSec=1\n"
    needy = "[Unit]\nRequires=limited.service\n" + service("/bin/true")
    off = service("/sbin/poweroff", action="poweroff")
    units = (("limited.service", limited), ("a.timer", timer), ("needy.service", needy))
    user_data = cloud_config(*units, ("off.service", off))
    instance_id = launch(ec2, user_data + "runcmd: [reboot]\n")

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "runcmd is not applied" in output
    assert "limited.service is not loaded: [Service] MemoryMax= is not modelled" in output
    assert "a.timer is not loaded: only services are modelled" in output
    assert "Dependency failed for needy.service: limited.service" in output
    assert "off.service failed with result 'exit-code'" in output, "no program powers off"


@pytest.mark.parametrize(
    "files", [{"/opt/off": "#!/bin/sh\n/sbin/poweroff\n"}, {"/../../outside": "text"}]
)
def test_a_user_data_can_not_reach_out_of_its_machine(
    ec2: EC2Client, files: dict[str, str]
) -> None:
    instance_id = launch(ec2, cloud_config(files=files))

    until(lambda: "the user-data is not applied" in console(ec2, instance_id))

    assert describe(ec2, instance_id)["State"]["Name"] == "running"


def test_the_default_shutdown_behaviour_is_stop(ec2: EC2Client) -> None:
    off = service("/bin/true", action="poweroff")
    instance_id = launch(ec2, cloud_config(("off.service", off)), "stop")

    ended(ec2, instance_id, "stopped")
    ec2.terminate_instances(InstanceIds=[instance_id])

    assert ended(ec2, instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


STUBBORN = """#!/bin/sh
[ -z "$ATEMPORAL_ROOT" ] || exec >>"$ATEMPORAL_ROOT/dev/console"
trap '' TERM
echo "pid $$"
setsid sh -c 'trap "" TERM; echo "pid $$"; while :; do sleep 1000; done' &
(setsid sh -c 'trap "" TERM; echo "pid $$"; while :; do sleep 1000; done' &)
while :; do sleep 1000; done
"""


def pids(ec2: EC2Client, instance_id: str, number: int) -> list[int]:
    def printed() -> list[int] | None:
        words = [line.split() for line in console(ec2, instance_id).splitlines()]
        found = [int(word[1]) for word in words if word[:1] == ["pid"]]
        return found if len(found) == number else None

    found: list[int] = until(printed)
    return found


@pytest.mark.parametrize("hard", [False, True])
def test_nothing_of_a_terminated_machine_survives(tmp_path: Path, hard: bool) -> None:
    unit = service("/opt/stubborn", more="TimeoutStopSec=1000\n")
    pace = Pace(kill_after_s=0.3)
    with Twin(tmp_path / "twin", engine="process", pace=pace) as twin:
        ec2 = client(twin.url)
        user_data = cloud_config(("stubborn.service", unit), files={"/opt/stubborn": STUBBORN})
        instance_id = launch(ec2, user_data)
        alive = pids(ec2, instance_id, 3)
        root = tmp_path / "twin/instances" / instance_id / "root"
        assert root.exists()
        if hard:
            # The job goes on; only its machine's first process is ended at once.
            processes.send([first_process(root.parent)], signal.SIGSTOP)

        ec2.terminate_instances(InstanceIds=[instance_id])

        ended(ec2, instance_id)
        assert [pid for pid in alive if processes.start_time(pid)] == []
        assert not root.exists()
        ec2.close()


def first_process(directory: Path) -> int:
    pid: int = json.loads((directory / "machine.json").read_bytes())["pid"]
    return pid


def test_a_machine_that_crashes_is_the_clouds_fault_and_ends_its_job_too(
    ec2: EC2Client, tmp_path: Path
) -> None:
    unit = service("/opt/job")
    job = (
        "#!/bin/sh\ndocker create --name a image /opt/stubborn\n"
        'docker start --attach a >>"$ATEMPORAL_ROOT/dev/console"\n'
    )
    root = tmp_path / "twin/instances"
    user_data = cloud_config(("job.service", unit), files={"/opt/job": job})
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(STUBBORN)
    stubborn.chmod(0o755)
    instance_id = launch(ec2, user_data.replace("/opt/stubborn", str(stubborn)))
    alive = pids(ec2, instance_id, 3)

    processes.send([first_process(root / instance_id)], signal.SIGKILL)

    assert ended(ec2, instance_id)["StateReason"]["Code"] == "Server.InternalError"
    assert [pid for pid in alive if processes.start_time(pid)] == []


class Server:
    """A twin in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "atemporal.twin", "--dir", str(directory), "--engine=process"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=PACKAGE_PARENT,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.ec2 = client(self.url)

    def end(self, number: signal.Signals) -> int:
        self.ec2.close()
        self._process.send_signal(number)
        self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode


def test_a_twin_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    waiting = service("/opt/wait", action="poweroff")
    script = '#!/bin/sh\nuntil [ -e "$ATEMPORAL_ROOT/go" ]; do sleep 0.02; done\n'
    user_data = cloud_config(("wait.service", waiting), files={"/opt/wait": script})
    request: Any = {
        "ImageId": "ami-12345678",
        "InstanceType": "t3.small",
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "kept"}]}
        ],
    }
    first = Server(tmp_path)
    stays, leaves, terminated = (
        first.ec2.run_instances(**request, ClientToken=token)["Instances"][0]["InstanceId"]
        for token in ("stays", "leaves", "terminated")
    )
    for instance_id in (stays, leaves, terminated):
        booted(first.ec2, instance_id)
    first.ec2.create_tags(Resources=[stays], Tags=[{"Key": "more", "Value": "later"}])
    first.ec2.terminate_instances(InstanceIds=[terminated])
    ended(first.ec2, terminated)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    (tmp_path / "instances" / leaves / "root/go").touch()
    until(lambda: (tmp_path / "instances" / leaves / "ended.json").exists())

    second = Server(tmp_path)

    assert second.url == first.url
    found = describe(second.ec2, stays)
    assert found["State"]["Name"] == "running"
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == {"Name": "kept", "more": "later"}
    again = second.ec2.run_instances(**request, ClientToken="stays")["Instances"]
    assert [instance["InstanceId"] for instance in again] == [stays]
    assert ended(second.ec2, leaves)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert describe(second.ec2, terminated)["State"]["Name"] == "terminated"
    (tmp_path / "instances" / stays / "root/go").touch()
    ended(second.ec2, stays)
    assert second.end(signal.SIGTERM) == 0
