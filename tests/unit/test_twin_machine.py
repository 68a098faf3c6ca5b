"""Machines: what a user-data makes them do, how they end, and that nothing of them stays."""

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


def cloud_config(
    *units: tuple[str, str],
    files: dict[str, str] | None = None,
    idle: dict[str, str] | None = None,
) -> str:
    """A user-data that starts units in order; `idle` ones are there and not started."""
    entries = [{"name": name, "content": text, "command": "start"} for name, text in units]
    entries += [{"name": name, "content": text} for name, text in (idle or {}).items()]
    written = [
        {"path": path, "content": text, "permissions": "0755"}
        for path, text in (files or {}).items()
    ]
    return "#cloud-config\n" + yaml.safe_dump(
        {"write_files": written, "coreos": {"units": entries}}
    )


def launch(ec2: EC2Client, user_data: str, behaviour: Any = "terminate") -> str:
    answer = ec2.run_instances(
        ImageId="ami-12345678",
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        UserData=user_data,
        InstanceInitiatedShutdownBehavior=behaviour,
    )
    return answer["Instances"][0]["InstanceId"]


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
Environment=WORD=100%%
ExecStartPre=/opt/tell first ${WORD}
ExecStartPre=-/bin/false
ExecStart=/opt/tell second
ExecStop=/opt/tell stopping
ExecStopPost=/opt/tell last
StandardOutput=journal+console
"""
TELL = """#!/bin/sh
echo "$*: [$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS] $ATEMPORAL_ROOT"
[ "$1" != second ] || exit 7
"""


def test_a_user_data_runs_as_systemd_would_run_it(ec2: EC2Client, twin: Twin) -> None:
    instance_id = launch(ec2, cloud_config(("job.service", JOB), files={"/opt/tell": TELL}))

    instance = ended(ec2, instance_id)

    assert instance["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    said = [line for line in console(ec2, instance_id).splitlines() if "/root" in line]
    assert [line.rpartition(" ")[0] for line in said] == [
        "first 100%: [  ]",
        "second: [  ]",
        "stopping: [  ]",
        "last: [exit-code exited 7]",
    ]


def test_a_failed_preparation_skips_the_main_process(ec2: EC2Client) -> None:
    unit = JOB.replace("-/bin/false", "/bin/false")
    instance_id = launch(ec2, cloud_config(("job.service", unit), files={"/opt/tell": TELL}))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "last: [exit-code  ]" in output
    assert "second" not in output
    assert "stopping" not in output


def test_the_metadata_service_knows_the_instance_and_wants_a_token(ec2: EC2Client) -> None:
    ask = """#!/bin/sh
    curl -s -o /dev/null -w 'bare %{http_code}\\n' "$ATEMPORAL_METADATA_URL/latest/meta-data/instance-id"
    token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
        "$ATEMPORAL_METADATA_URL/latest/api/token")
    curl -s -H "X-aws-ec2-metadata-token: $token" \
        -w ' %{http_code}\\n' "$ATEMPORAL_METADATA_URL/latest/meta-data/instance-id"
    systemctl poweroff
    """
    unit = "[Service]\nType=oneshot\nExecStart=/opt/ask\nStandardOutput=tty\n"
    instance_id = launch(ec2, cloud_config(("ask.service", unit), files={"/opt/ask": ask}))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "bare 401\n" in output
    assert f"{instance_id} 200\n" in output


def test_a_timer_starts_its_service(ec2: EC2Client) -> None:
    timer = ("off.timer", "[Timer]\nOnBootSec=200ms\n")
    service = "[Service]\nType=oneshot\nExecStart=/usr/bin/systemctl poweroff\n"
    instance_id = launch(ec2, cloud_config(timer, idle={"off.service": service}))

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert output.index("off.timer elapsed") < output.index("Powering off: systemctl")


def test_a_start_that_takes_too_long_fails(ec2: EC2Client) -> None:
    unit = JOB.replace("-/bin/false", "/bin/sleep 1000") + "TimeoutStartSec=300ms\n"
    instance_id = launch(ec2, cloud_config(("job.service", unit), files={"/opt/tell": TELL}))

    ended(ec2, instance_id)

    assert "last: [timeout  ]" in console(ec2, instance_id)


def test_what_the_twin_can_not_do_is_said_on_the_console(ec2: EC2Client) -> None:
    first = "[Service]\nType=oneshot\nExecStart=/bin/true\nMemoryMax=1G\n"
    second = "[Unit]\nSuccessAction=poweroff\n[Service]\nType=oneshot\nExecStart=/bin/true\n"
    refused = "[Service]\nType=forking\nExecStart=/bin/true\n"
    user_data = cloud_config(("a.service", first), ("c.service", refused), ("b.service", second))
    instance_id = launch(ec2, user_data + "runcmd: [reboot]\n")

    ended(ec2, instance_id)

    output = console(ec2, instance_id)
    assert "runcmd is not applied" in output
    assert "a.service: [Service] MemoryMax= is not modelled" in output
    assert "c.service is not loaded: Type=forking is not modelled" in output


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
    off = "[Service]\nType=oneshot\nExecStart=/sbin/poweroff\n"
    instance_id = launch(ec2, cloud_config(("off.service", off)), "stop")

    ended(ec2, instance_id, "stopped")
    ec2.terminate_instances(InstanceIds=[instance_id])

    assert ended(ec2, instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


STUBBORN = """#!/bin/sh
trap '' TERM
echo "pid $$"
setsid sh -c 'trap "" TERM; echo "pid $$"; while :; do sleep 1000; done' &
(setsid sh -c 'trap "" TERM; echo "pid $$"; while :; do sleep 1000; done' &)
while :; do sleep 1000; done
"""


def pids(ec2: EC2Client, instance_id: str, number: int) -> list[int]:
    def told() -> list[int] | None:
        words = [line.split() for line in console(ec2, instance_id).splitlines()]
        found = [int(word[1]) for word in words if word[:1] == ["pid"]]
        return found if len(found) == number else None

    told_pids: list[int] = until(told)
    return told_pids


@pytest.mark.parametrize("hard", [False, True])
def test_nothing_of_a_terminated_machine_survives(tmp_path: Path, hard: bool) -> None:
    unit = (
        "[Service]\nType=exec\nExecStart=/opt/stubborn\nStandardOutput=tty\nTimeoutStopSec=1000\n"
    )
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


def test_a_machine_that_crashes_is_the_clouds_fault_and_takes_its_job_along(
    ec2: EC2Client, tmp_path: Path
) -> None:
    unit = "[Service]\nType=exec\nExecStart=/opt/job\nStandardOutput=tty\n"
    job = "#!/bin/sh\ndocker create --name a image /opt/stubborn\ndocker start --attach a\n"
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
    waits = "[Unit]\nSuccessAction=poweroff\n[Service]\nExecStart=/opt/wait\n"
    script = '#!/bin/sh\nuntil [ -e "$ATEMPORAL_ROOT/go" ]; do sleep 0.02; done\n'
    user_data = cloud_config(("wait.service", waits), files={"/opt/wait": script})
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
