"""The rendered user-data on a real systemd with a real docker: what a machine on EC2 does, to the end.

A machine is a container with systemd as PID 1; its job runs beside it on the same docker, from an image
pulled out of a real registry; the API is the test's.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from atemporal import registries, settings, userdata
from atemporal.model import AttemptRef, ExitRecord, JobSpec, Launch
from atemporal.states import Reason
from cloud_config import LOG_SHIPPER
from tests import callback_api
from tests.callback_api import INSTANCE_ID, CallbackApi
from tests.e2e.systemd.engine import PASSWORD, USER, Engine, open_engine, open_registry
from tests.e2e.systemd.images import machine_image, push_job_image
from tests.e2e.systemd.limited import open_limited_registry
from tests.e2e.systemd.machine import Machine, open_machine

# Building the machine's image takes a minute or two, once.
pytestmark = pytest.mark.timeout(900)

TOKEN = "k1." + "0123456789abcdef" * 4
AWKWARD = "first 'line'\n\"second\" $HOME `id` 100% \\n\n\nünï ☃ -- \n"
PRINT_AND_FAIL = (
    "/bin/sh",
    "-c",
    'printf "%s|" "$AWKWARD" "$EMPTY" "$@"; exit 7',
    "sh",
    "-x",
    "$A\n",
)
RUN_UNTIL_STOPPED = (
    "/bin/sh",
    "-c",
    "trap 'exit 3' TERM; echo here; while :; do busybox sleep 1; done",
)


@dataclass
class Site:
    """Where machines are: the docker, the machine's image and the job's."""

    engine: Engine
    machine_image: str
    job_image: str


@dataclass
class Case:
    """One attempt: its job, its machine and its API."""

    site: Site
    api: CallbackApi
    machine: Machine
    ref: AttemptRef = field(default_factory=lambda: AttemptRef(uuid4(), 1))

    def user_data(self, *, deadline_s: int = 300, family: str = "flatcar", **fields: Any) -> bytes:
        """The attempt's user-data as the launcher renders it."""
        launch = self.launch(deadline_s, family)
        return userdata.render(self.ref, self.spec(**fields), launch, TOKEN)

    def manifest(self, **fields: Any) -> bytes:
        """What the API tells the machine of a launch group."""
        return userdata.manifest(self.ref, self.spec(**fields), self.launch(), TOKEN)

    def spec(
        self,
        *,
        command: tuple[str, ...] = PRINT_AND_FAIL,
        image: str | None = None,
        more: dict[str, str] | None = None,
        **fields: Any,
    ) -> JobSpec:
        """The job."""
        return JobSpec(
            image=image or self.site.job_image,
            command=command,
            env={"AWKWARD": AWKWARD, "EMPTY": "", **(more or {})},
            timeout_s=60,
            ports=(),
            **fields,
        )

    def launch(self, deadline_s: int = 300, family: str = "flatcar") -> Launch:
        """What its user-data is made of beside the job."""
        return Launch(
            image_id="ami-1",
            instance_type="t3.small",
            callback_base=self.api.url,
            key_id="k1",
            deadline_s=deadline_s,
            os_family=family,
        )

    @property
    def container(self) -> str | None:
        """Docker's word for the job's container: its status and times; None when there is none."""
        shown = self.site.engine.run(
            *("inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}"),
            f"atemporal-{self.ref.id}",
            check=False,
        )
        return shown.stdout.decode().strip() or None

    @property
    def report(self) -> list[str]:
        """The lines about this attempt on the machine's console."""
        words = (f"atemporal-exit {self.ref.id} ", f"atemporal-log {self.ref.id} ")
        return [line for line in self.machine.console if line.startswith(words)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_engine() as engine, open_registry() as registry:
        yield Site(engine, machine_image(engine), push_job_image(engine, registry))


@pytest.fixture
def case(site: Site) -> Iterator[Case]:
    with (
        callback_api.serve() as api,
        open_machine(site.engine, site.machine_image, api.url) as machine,
    ):
        case = Case(site, api, machine)
        yield case
        site.engine.run("rm", "--force", f"atemporal-{case.ref.id}", check=False)


def test_a_job_that_exits_7_is_reported_and_its_machine_is_off(case: Case) -> None:
    machine, at_call = case.machine, dict[str, tuple[str | None, list[str], list[str]]]()
    units = ("update-engine", "locksmithd", "atemporal-deadline", "atemporal-job")
    case.api.before_response = lambda call: at_call.update(
        {
            call.method: (
                case.container,
                [machine.state(f"{unit}.service") for unit in units],
                case.report,
            )
        }
    )
    assert machine.state("update-engine.service") == "active (static)"
    machine.apply(case.user_data())
    machine.wait_off()

    assert case.api.methods == ["PUT", "PATCH", "DELETE"]
    container, states, _ = at_call["PATCH"]
    assert container == "created 0001-01-01T00:00:00Z", "started before it was granted"
    assert states == [
        *("inactive (masked)", "inactive (masked)"),
        *("active (enabled)", "activating (static)"),
    ]

    assert {call.path for call in case.api.calls} == {f"/jobs/{case.ref.job_id}/callback"}
    assert {call.token for call in case.api.calls} == {TOKEN}
    body = case.api.body("DELETE")
    record = ExitRecord.model_validate(body)
    assert (record.phase, record.exit_code) == ("run", 7)
    assert not record.timed_out
    assert not record.oom_killed
    assert record.service_result == "exit-code"
    assert record.instance_id == INSTANCE_ID
    assert record.claim == case.api.body("PATCH")["claim"]
    assert record.started_at
    assert record.finished_at
    # Docker notes the start after the fact: a short run can seem to end a fraction before it.
    assert timedelta(seconds=-1) < record.finished_at - record.started_at < timedelta(seconds=30)
    assert record.log_tail.decode() == f"{AWKWARD}||-x|$A\n|"

    _, _, report = at_call["DELETE"]
    assert report == case.report, "the console holds the report before the callback does"
    exit_line, *log_lines = (line.split(" ", 2)[2] for line in report)
    assert json.loads(exit_line) == {k: v for k, v in body.items() if k != "log_tail"}
    assert b"".join(map(base64.b64decode, log_lines)) == record.log_tail
    assert AWKWARD.split("\n")[0] not in "\n".join(machine.console)


def test_the_container_is_made_with_what_the_job_asks_of_docker(case: Case) -> None:
    script = "busybox id -u; busybox id -g; pwd; busybox ls -d /data /host; echo $0 $1"
    user_data = case.user_data(
        entrypoint=("/bin/sh", "-c", script),
        command=("zero", "$one"),
        user="65534:100",
        workdir="/tmp",
        memory_mb=64,
        shm_mb=8,
        volumes=("/data", "/etc/atemporal-test:/host:ro"),
        network="none",
    )
    case.machine.apply(user_data)
    case.machine.wait_off()
    record = ExitRecord.model_validate(case.api.body("DELETE"))
    assert record.log_tail.decode().split("\n") == [
        *("65534", "100", "/tmp", "/data", "/host", "zero $one", ""),
    ]
    (made,) = json.loads(case.site.engine.run("inspect", f"atemporal-{case.ref.id}").stdout)
    config, host = made["Config"], made["HostConfig"]
    assert config["Entrypoint"] == ["/bin/sh"]
    assert config["Cmd"] == ["-c", script, "zero", "$one"]
    assert (host["Memory"], host["ShmSize"]) == (64 << 20, 8 << 20)
    assert host["NetworkMode"] == "none"
    assert sorted((one["Type"], one["Destination"], one["RW"]) for one in made["Mounts"]) == [
        ("bind", "/host", False),
        ("volume", "/data", True),
    ]


def test_a_machine_shut_down_from_outside_says_that_the_program_is_not_to_blame(
    case: Case,
) -> None:
    case.machine.apply(case.user_data(command=RUN_UNTIL_STOPPED))
    deadline = time.monotonic() + 30
    while not (case.container or "").startswith("running"):
        assert time.monotonic() < deadline, case.machine.console
        time.sleep(0.1)
    # What a press of the power button does: EC2 presses it when it ends an instance.
    case.machine.shut_down()
    case.machine.wait_off()
    record = ExitRecord.model_validate(case.api.body("DELETE"))
    assert record.stopped
    assert record.reason is Reason.INSTANCE_LOST
    assert (record.phase, record.exit_code) == ("run", 3)
    assert record.log_tail == b"here\n"


class TestTheFirstCommandHangs:
    """What applies the user-data starts one unit, and is not heard of again."""

    def test_the_job_runs_and_is_reported(self, case: Case) -> None:
        case.machine.apply(case.user_data(), hangs=True)
        case.machine.wait_off()
        assert case.api.methods == ["PUT", "PATCH", "DELETE"]
        assert ExitRecord.model_validate(case.api.body("DELETE")).exit_code == 7

    def test_a_claim_that_is_refused_ends_the_machine(self, case: Case) -> None:
        case.api.statuses["PATCH"] = [409]
        case.machine.apply(case.user_data(), hangs=True)
        case.machine.wait_off()
        assert case.api.methods == ["PUT", "PATCH"]

    def test_the_deadline_ends_it(self, case: Case) -> None:
        case.api.statuses["PATCH"] = [503]
        case.machine.apply(case.user_data(deadline_s=6), hangs=True)
        case.machine.wait_off()
        assert set(case.api.methods) == {"PUT", "PATCH"}


@pytest.mark.parametrize("wrong", ["a file that is none", "no file", "nothing to execute"])
def test_the_deadline_runs_although_the_job_can_not(case: Case, wrong: str) -> None:
    config = yaml.safe_load(case.user_data(deadline_s=4))
    job = next(u for u in config["coreos"]["units"] if u["name"] == "atemporal-job.service")
    match wrong:
        case "a file that is none":
            job["content"] = "no unit at all\n"
        case "no file":
            config["coreos"]["units"].remove(job)
        case _:
            job["content"] = "[Service]\nType=exec\n"
    case.machine.apply(b"#cloud-config\n" + yaml.safe_dump(config).encode())
    assert case.machine.state("atemporal-deadline.service") == "active (enabled)"
    case.machine.wait_off()
    assert case.api.calls == []


@pytest.mark.parametrize("takes", [True, False], ids=["taken", "unanswered"])
def test_what_a_container_writes_is_sent_meanwhile_and_its_end_waits_for_none_of_it(
    case: Case, takes: bool
) -> None:
    api, arrived = case.api, dict[str, float]()
    api.log_script, api.takes_logs = LOG_SHIPPER, takes
    api.before_response = lambda call: arrived.update({call.method: time.time()})
    write = "echo begun; busybox sleep 9; busybox seq 1 20000; busybox sleep 3"
    case.machine.apply(case.user_data(command=("/bin/sh", "-c", write)))
    case.machine.wait_off()
    output = "".join(f"{line}\n" for line in ("begun", *range(1, 20_001))).encode()
    assert api.log_chunks[0] == (0, b"begun\n")
    record = ExitRecord.model_validate(api.body("DELETE"))
    assert record.exit_code == 0
    assert record.log_bytes == len(output)
    assert output.endswith(record.log_tail)
    for start, data in api.log_chunks:
        assert output[start : start + len(data)] == data
    assert record.finished_at is not None
    assert arrived["DELETE"] - record.finished_at.timestamp() < 5


def test_a_second_boot_powers_off_without_running_again(case: Case) -> None:
    case.machine.apply(case.user_data())
    case.machine.wait_off()
    before, calls = case.container, case.api.methods
    case.machine.boot_again()
    case.machine.wait_off()
    case.machine.wait_says("has been here before")
    assert (case.container, case.api.methods) == (before, calls)


def test_a_refused_machine_powers_off_without_running(case: Case) -> None:
    case.api.statuses["PATCH"] = [409]
    case.machine.apply(case.user_data())
    case.machine.wait_off()
    assert case.container == "created 0001-01-01T00:00:00Z"
    assert case.api.methods == ["PUT", "PATCH"]
    assert case.report == []


def test_the_deadline_ends_a_machine_that_nobody_answers(case: Case) -> None:
    case.api.statuses["PATCH"] = [503]
    case.machine.apply(case.user_data(deadline_s=6))
    case.machine.wait_off()
    assert set(case.api.methods) == {"PUT", "PATCH"}
    assert case.container == "created 0001-01-01T00:00:00Z"


@pytest.mark.parametrize("path", ["/etc/atemporal/manifest", "/opt/atemporal/bin/agent"])
def test_a_machine_without_its_orders_or_its_worker_powers_off(case: Case, path: str) -> None:
    config = yaml.safe_load(case.user_data())
    config["write_files"] = [file for file in config["write_files"] if file["path"] != path]
    case.machine.apply(b"#cloud-config\n" + yaml.safe_dump(config).encode())
    case.machine.wait_off()
    assert case.container is None
    assert case.api.calls == []


def test_a_registry_that_wants_a_password_costs_one_question_and_one_machine(case: Case) -> None:
    with open_registry(locked=True) as registry:
        begun = time.monotonic()
        case.machine.apply(case.user_data(image=f"{registry}/test/job:1"))
        case.machine.wait_off()
    assert time.monotonic() - begun < 60, "it went on asking"
    assert case.api.methods == ["DELETE"]
    record = ExitRecord.model_validate(case.api.body("DELETE"))
    assert (record.phase, record.definite) == ("pull", True)
    assert record.reason is Reason.IMAGE_REFUSED
    assert b"no basic auth credentials" in record.log_tail
    assert case.container is None


def test_a_machine_that_is_told_the_password_with_its_job_pulls_and_shows_it_nowhere(
    case: Case, tmp_path: Path
) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with open_registry(locked=True) as registry:
        # As README says: docker's own client writes the file.
        login = ("login", "--username", USER, "--password", PASSWORD, registry)
        case.site.engine.run("--config", str(tmp_path), *login)
        image = push_job_image(case.site.engine, registry, config=tmp_path)
        known = registries.load(settings.load(registries_file=str(tmp_path / "config.json")))
        assert known.opens(image) == auth
        case.api.group_manifest = case.manifest(image=image) + f"auth={auth}\0".encode()
        group = userdata.render_group(case.ref.job_id, case.launch(), TOKEN)
        case.machine.apply(group)
        case.machine.wait_off()
    assert ExitRecord.model_validate(case.api.body("DELETE")).exit_code == 7
    shown = case.site.engine.run("inspect", f"atemporal-{case.ref.id}").stdout.decode()
    for text in (shown, "\n".join(case.machine.console), str(case.api.calls), group.decode()):
        assert auth not in text
        assert PASSWORD not in text


def test_an_image_that_a_registry_has_not_costs_one_question_and_one_machine(case: Case) -> None:
    begun = time.monotonic()
    case.machine.apply(case.user_data(image=f"{case.site.job_image}-nope"))
    case.machine.wait_off()
    assert time.monotonic() - begun < 60, "it went on asking"
    record = ExitRecord.model_validate(case.api.body("DELETE"))
    assert record.reason is Reason.IMAGE_REFUSED
    assert b"not found" in record.log_tail


def test_a_registry_that_wants_less_is_asked_when_it_says(case: Case) -> None:
    with open_limited_registry(limit_s=5) as registry:
        case.machine.apply(case.user_data(image=f"{registry.address}/test/job:1"))
        case.machine.wait_off()
    first, second = registry.pulls
    assert second - first >= 5, "it was asked before its time"
    record = ExitRecord.model_validate(case.api.body("DELETE"))
    assert record.reason is Reason.IMAGE_REFUSED
