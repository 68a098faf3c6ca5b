"""The agent's promises: run at most once and only when granted, report how it ended, keep data exact.

The agent is the one a machine gets, called as its unit calls it, below a folder instead of `/`. Its
API is a real HTTP server; docker is a stand-in that writes down what it was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloud_config
from atemporal import userdata
from atemporal.model import AttemptRef, ExitRecord, JobSpec, Launch
from atemporal.states import Fault, Reason
from cloud_config import AGENT, DEADLINE_UNIT, JOB_UNIT, LOG_SHIPPER, SECRET_RESOLVER
from tests import callback_api
from tests.callback_api import INSTANCE_ID, CallbackApi

SOURCE = Path(cloud_config.__file__).parent
REF = AttemptRef(UUID("0198c5e0-7a11-7c3e-9d5b-2f4a6b8c0d1e"), 1)
NAME = f"atemporal-{REF.id}"
TOKEN = "k1." + "0123456789abcdef" * 4

# Stands in for the client of docker: a folder holds what it was asked and what to say.
DOCKER = r"""#!/usr/bin/env bash
cd "${0%/*}/docker.d"
[[ $1 != --config ]] || { cat "$2/config.json" >>config.json; echo >>config.json; shift 2; }
printf '%s\0' "$@" >>"$1.argv"; printf '\n' >>"$1.argv"
echo "$1" >>order
case $1 in
  start)
    [[ -e start.fails ]] || { echo running >status; echo 2026-01-02T03:04:05.123456789Z >started; } ;;
  wait) [[ -e lasts ]] && exec /bin/sleep 60; echo exited >status; echo 7 ;;
  stop) [[ -e stop.fails ]] || { echo exited >status; echo 137 >code; } ;;
  inspect)
    left=$(<unanswered); ((left == 0)) || { echo $((left - 1)) >unanswered; exit 1; }
    printf '%s %s %s "%s" "%s"\n' "$(<status)" "$(<code)" "$(<oom)" "$(<started)" "$(<started)" ;;
  logs) cat output; echo "and this" >&2 ;;
esac
[[ ! -e $1.fails ]] || { cat "$1.fails" >&2; exit 125; }
"""
# Waiting costs nothing here; how long was asked for is written down.
# Only the pause before the log's script is asked for passes: no run here is as long, but where a test
# says so.
SLEEP = """#!/usr/bin/env bash
[[ $1 != 5s ]] || exec /bin/sleep "${BEFORE_LOG:-20}"
echo "$1" >>"${0%/*}/slept"
"""
# What is meant for AWS goes to where `AWS_AT` says.
CURL = """#!/usr/bin/env bash
printf '%s\\n' "$@" >>"${0%/*}/curl.argv"
words=()
for word; do
  [[ ! $word =~ ^https://[a-z0-9.-]+\\.amazonaws\\.com(\\.cn)?/?$ ]] || word=$AWS_AT
  words+=("$word")
done
exec -a curl "$REAL_CURL" "${words[@]}"
"""


class Machine:
    """A folder as a machine's root, with the agent and the manifest in place."""

    def __init__(self, root: Path, api: CallbackApi) -> None:
        self.root, self.api = root, api
        self.bin = root / "bin"
        self.docker = self.bin / "docker.d"
        for folder in (self.docker, root / "dev", root / "opt/atemporal", root / "etc/atemporal"):
            folder.mkdir(parents=True)
        curl = shutil.which("curl")
        assert curl, "curl is not installed; the machine's agent needs it"
        scripts = {"docker": DOCKER, "sleep": SLEEP, "curl": CURL}
        for path, text in [
            *((self.bin / name, text) for name, text in scripts.items()),
            (root / "opt/atemporal/agent", AGENT),
        ]:
            path.write_text(text)
            path.chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "REAL_CURL": curl,
            "ATEMPORAL_ROOT": str(root),
            "ATEMPORAL_METADATA_URL": api.url,
        }
        self.say(unanswered=0)
        self.say(status="created", code=7, oom="false", started="0001-01-01T00:00:00Z", output="")
        self.order(JobSpec(image="nginx:1.9"))

    def say(self, **answers: object) -> None:
        """Set what docker answers; `<command>_fails` makes that command fail with this message."""
        for name, answer in answers.items():
            (self.docker / name.replace("_", ".")).write_text(f"{answer}\n")

    def order(
        self,
        spec: JobSpec,
        deadline_s: int = 600,
        capacity_type: Literal["on-demand", "spot"] = "on-demand",
    ) -> None:
        """Write the manifest of a job."""
        launch = Launch(
            image_id="ami-1",
            instance_type="t3.small",
            callback_base=self.api.url,
            key_id="k1",
            deadline_s=deadline_s,
            capacity_type=capacity_type,
        )
        rendered = userdata.render(REF, spec, launch, TOKEN).decode()
        content = re.search(r"encoding: base64\n *content: (\S+)\n", rendered)
        assert content
        self.manifest.write_bytes(base64.b64decode(content[1]))

    @property
    def manifest(self) -> Path:
        return self.root / "etc/atemporal/manifest"

    def boot(self) -> None:
        """Start with an empty `/run`, and run the unit as systemd would, to its end."""
        shutil.rmtree(self.root / "run", ignore_errors=True)
        lines = re.findall(r"^(Exec\w+)=/opt/atemporal/bin/(agent \w+)$", JOB_UNIT, re.MULTILINE)
        assert [key for key, _ in lines] == [*["ExecStartPre"] * 5, "ExecStart", "ExecStopPost"]
        result = "success"
        for _, command in lines[:-1]:
            if self.agent(command.split()[1]) != 0:
                result = "exit-code"
                break
        assert self.agent(lines[-1][1].split()[1], SERVICE_RESULT=result) == 0

    def agent(self, command: str, **environment: str) -> int:
        """Run one sub-command; return its exit status."""
        return subprocess.run(
            [self.root / "opt/atemporal/agent", command],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        ).returncode

    @property
    def steps(self) -> list[str]:
        """What docker was asked, in order, without the questions that change nothing."""
        path = self.docker / "order"
        asked = path.read_text().split() if path.exists() else []
        return [command for command in asked if command not in ("inspect", "logs")]

    def argv(self, command: str) -> list[str]:
        """The arguments of docker's only call with this command."""
        words = (self.docker / f"{command}.argv").read_bytes().split(b"\0")
        assert words.pop() == b"\n"
        return [word.decode() for word in words]

    @property
    def slept(self) -> list[float]:
        """How long each wait was meant to be, in seconds."""
        path = self.bin / "slept"
        return [float(line) for line in path.read_text().split()] if path.exists() else []

    @property
    def console(self) -> list[str]:
        path = self.root / "dev/console"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def record(self) -> ExitRecord:
        """The exit record that the API was given."""
        return ExitRecord.model_validate(self.api.body("DELETE"))


@pytest.fixture
def api() -> Iterator[CallbackApi]:
    with callback_api.serve() as api:
        yield api


@pytest.fixture
def machine(tmp_path: Path, api: CallbackApi) -> Machine:
    return Machine(tmp_path, api)


def test_a_job_is_pulled_created_claimed_run_and_reported(
    machine: Machine, api: CallbackApi
) -> None:
    at_claim: list[list[str]] = []
    api.before_response = lambda call: at_claim.append(machine.steps)
    machine.say(output="hello")
    machine.boot()
    assert at_claim[0] == ["pull", "create"]
    assert machine.steps == ["pull", "create", "start", "wait"]
    assert api.methods == ["PUT", "PATCH", "DELETE"]
    claim = api.body("PATCH")
    assert str(UUID(claim["claim"])) == claim["claim"]
    assert claim["instance_id"] == INSTANCE_ID
    assert all(call.path == f"/jobs/{REF.job_id}/callback" for call in api.calls)
    assert all(call.token == TOKEN for call in api.calls)
    assert api.body("DELETE") == {
        "phase": "run",
        "exit_code": 7,
        "oom_killed": False,
        "timed_out": False,
        "interrupted": False,
        "stopped": False,
        "definite": False,
        "service_result": "exit-code",
        "started_at": "2026-01-02T03:04:05.123456789Z",
        "finished_at": "2026-01-02T03:04:05.123456789Z",
        "log_bytes": None,
        "claim": claim["claim"],
        "instance_id": INSTANCE_ID,
        "log_tail": base64.b64encode(b"hello\nand this\n").decode(),
    }
    assert machine.record.log_tail == b"hello\nand this\n"


def test_the_console_holds_the_same_record_before_the_callback(
    machine: Machine, api: CallbackApi
) -> None:
    output = "".join(f"line {number}\n" for number in range(10_000))
    at_report: list[list[str]] = []
    api.before_response = lambda call: at_report.append(machine.console)
    machine.say(output=output)
    machine.boot()
    record = api.body("DELETE")
    tail = base64.b64decode(record.pop("log_tail"))
    assert tail == f"{output}\nand this\n".encode()[-32_768:]
    assert at_report[-1] == machine.console
    prefix = f"atemporal-exit {REF.id} "
    (line,) = [line for line in machine.console if line.startswith(prefix)]
    assert json.loads(line.removeprefix(prefix)) == record
    prefix = f"atemporal-log {REF.id} "
    chunks = [line.removeprefix(prefix) for line in machine.console if line.startswith(prefix)]
    assert b"".join(base64.b64decode(chunk, validate=True) for chunk in chunks) == tail
    # EC2 keeps the last 64 KiB of a console.
    assert sum(len(line) + 2 for line in machine.console) < 50_000
    assert machine.console == ["", *machine.console[1:]]
    assert len(machine.console) == 2 + len(chunks)


@pytest.mark.parametrize(
    ("active", "ports", "written"),
    [
        ("tty0", ("ttyS0",), ("console", "ttyS0")),
        ("tty0 ttyS0", ("ttyS0",), ("console",)),
        ("tty0", ("ttyS0", "hvc0"), ("console", "ttyS0", "hvc0")),
        ("ttyS0 hvc0", ("ttyS0", "hvc0"), ("console", "ttyS0")),
        ("", ("hvc0",), ("console", "hvc0")),
        (None, (), ("console",)),
    ],
)
def test_the_report_is_on_every_serial_console_once(
    machine: Machine, active: str | None, ports: tuple[str, ...], written: tuple[str, ...]
) -> None:
    if active is not None:
        known = machine.root / "sys/class/tty/console/active"
        known.parent.mkdir(parents=True)
        known.write_text(f"{active}\n")
    for port in ports:
        (machine.root / "dev" / port).touch()
    machine.boot()
    counts = {
        path.name: path.read_text().count(f"atemporal-exit {REF.id}")
        for path in (machine.root / "dev").iterdir()
    }
    assert {name: count for name, count in counts.items() if count} == dict.fromkeys(written, 1)


@pytest.mark.parametrize("restarts", [True, False])
def test_a_docker_that_restarts_during_the_run_is_not_the_programs_fault(
    machine: Machine, restarts: bool
) -> None:
    script = machine.bin / "systemctl"
    runs = 'echo run >>"${0%/*}/runs"; echo InvocationID=$(grep -c . "${0%/*}/runs")'
    script.write_text(f"#!/usr/bin/env bash\n{runs if restarts else 'echo InvocationID=1'}\n")
    script.chmod(0o755)
    machine.say(code="3")
    machine.boot()
    record = machine.record
    assert record.stopped is restarts
    assert record.reason is (Reason.INSTANCE_LOST if restarts else Reason.EXIT_NONZERO)


@pytest.mark.parametrize("silent", ["before", "after"])
def test_a_systemd_that_does_not_say_blames_nobody(machine: Machine, silent: str) -> None:
    """To blame the machine would run the job again."""
    script = machine.bin / "systemctl"
    # Asked at the start, while it runs, and at the report.
    answers = "echo InvocationID=1" if silent == "after" else "exit 1"
    later = "exit 1" if silent == "after" else "echo InvocationID=1"
    started = "${0%/*}/docker.d/wait.argv"
    script.write_text(
        f"#!/usr/bin/env bash\nif [[ -e {started} ]]; then {later}; else {answers}; fi\n"
    )
    script.chmod(0o755)
    machine.say(code="3")
    machine.boot()
    assert not machine.record.stopped
    assert machine.record.reason is Reason.EXIT_NONZERO


def test_the_time_of_the_pulls_counts_too(machine: Machine) -> None:
    (machine.bin / "docker").write_text(
        DOCKER.replace("  start)\n", "  pull) /bin/sleep 4 ;;\n  start)\n", 1)
    )
    machine.say(pull_fails="dial tcp: i/o timeout")
    whole = machine.manifest.read_bytes()
    # A busy machine may take three seconds more for the first, and it ends in time still.
    machine.manifest.write_bytes(whole.replace(b"pull=120", b"pull=7"))
    machine.boot()
    assert machine.steps == ["pull"] * 2


def test_a_program_that_outlives_its_docker_has_its_own_exit_code(machine: Machine) -> None:
    # Docker can be told to leave containers alone when it restarts: here it has before the wait.
    script = machine.bin / "systemctl"
    script.write_text(
        "#!/usr/bin/env bash\nif [[ -s ${0%/*}/docker.d/inspect.argv ]]; then echo InvocationID=2; "
        "else echo InvocationID=1; fi\n"
    )
    script.chmod(0o755)
    machine.say(code="3")
    machine.boot()
    assert not machine.record.stopped
    assert (machine.record.reason, machine.record.exit_code) == (Reason.EXIT_NONZERO, 3)


def test_a_slow_start_takes_nothing_from_the_run(machine: Machine) -> None:
    slow = machine.bin / "docker"
    slow.write_text(DOCKER.replace("  start)\n", "  start)\n    /bin/sleep 2\n", 1))
    machine.say(lasts="")
    machine.manifest.write_bytes(
        re.sub(rb"timeout=\d+", b"timeout=2", machine.manifest.read_bytes())
    )
    begun = time.monotonic()
    machine.boot()
    assert time.monotonic() - begun > 4
    assert machine.record.timed_out


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_a_refused_claim_never_runs_and_reports_nothing(
    machine: Machine, api: CallbackApi, status: int
) -> None:
    api.statuses["PATCH"] = [status]
    machine.boot()
    assert machine.steps == ["pull", "create"]
    assert api.methods == ["PUT", "PATCH"]
    assert machine.console == [f"atemporal: {REF.id} was not granted"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_callback_that_moved_is_refused_and_named(
    machine: Machine, api: CallbackApi, status: int
) -> None:
    # The last answer is for ever: who asks again would be granted.
    api.statuses["PATCH"] = [status, 204]
    machine.boot()
    assert machine.steps == ["pull", "create"]
    assert api.methods == ["PUT", "PATCH"]
    moved, refused = machine.console
    assert f"{api.url}/jobs/{REF.job_id}/callback answers {status}" in moved
    assert refused == f"atemporal: {REF.id} was not granted"


def test_a_machine_stopped_while_it_asks_reports_nothing(
    machine: Machine, api: CallbackApi
) -> None:
    stopped: list[int] = []
    api.before_response = lambda call: stopped.append(machine.agent("report"))
    api.statuses["PATCH"] = [409]
    machine.boot()
    assert stopped == [0, 0]
    assert api.methods == ["PUT", "PATCH"]


@pytest.mark.parametrize("done", [["pull"], ["pull", "create", "hold", "claim"]])
def test_a_machine_stopped_before_its_container_started_does_not_blame_the_program(
    machine: Machine, api: CallbackApi, done: list[str]
) -> None:
    for step in done:
        assert machine.agent(step) == 0
    machine.agent("report")
    assert api.methods[-1] == "DELETE"
    assert machine.record.reason.fault is Fault.INFRASTRUCTURE


def test_a_claim_without_an_answer_is_repeated_with_the_same_id(
    machine: Machine, api: CallbackApi
) -> None:
    api.statuses["PATCH"] = [503, 429, 500, 408, 204]
    machine.boot()
    assert api.methods == ["PUT", *["PATCH"] * 5, "DELETE"]
    assert len({call.body["claim"] for call in api.calls}) == 1
    assert machine.record.exit_code == 7
    slept = (machine.bin / "slept").read_text().split()
    assert [int(float(pause)) for pause in slept] == [0, 1, 2, 4]


def test_a_claim_that_nothing_answers_waits_for_the_api(machine: Machine, tmp_path: Path) -> None:
    # Nobody listens; the deadline is short. What was never granted is never run nor reported.
    machine.environment["ATEMPORAL_METADATA_URL"] = "http://127.0.0.1:9"
    machine.api.url = "http://127.0.0.1:9"
    machine.order(JobSpec(image="nginx"), deadline_s=3)
    machine.boot()
    assert machine.steps == ["pull", "create"]
    assert machine.api.calls == []


def test_no_metadata_service_is_no_instance_id(machine: Machine, api: CallbackApi) -> None:
    api.has_metadata = False
    machine.boot()
    assert api.body("PATCH")["instance_id"] is None
    assert machine.record.instance_id is None
    assert machine.record.exit_code == 7


@pytest.mark.parametrize(
    "status", [{"PUT": 401}, {"PUT": 503}, {"GET": 401}, {"PUT": 0}, {"GET": 0}]
)
@pytest.mark.parametrize("capacity_type", ["on-demand", "spot"])
def test_no_session_of_the_metadata_service_is_needed(
    machine: Machine,
    api: CallbackApi,
    status: dict[str, int],
    capacity_type: Literal["on-demand", "spot"],
) -> None:
    # Early in a boot it refuses or does not answer: that costs the instance's id, never the job.
    api.metadata_status = status
    machine.order(JobSpec(image="nginx"), capacity_type=capacity_type)
    machine.boot()
    assert machine.record.exit_code == 7
    assert machine.record.instance_id is None


def test_a_lost_report_is_repeated_and_a_refused_one_is_not(
    machine: Machine, api: CallbackApi
) -> None:
    api.statuses["DELETE"] = [502, 503, 409]
    machine.boot()
    assert api.methods == ["PUT", "PATCH", *["DELETE"] * 3]
    assert machine.console[-1] == f"atemporal: {REF.id} could not report its end"


def test_a_run_longer_than_the_timeout_is_stopped_and_says_so(machine: Machine) -> None:
    machine.order(JobSpec(image="nginx", timeout_s=1))
    machine.say(lasts="")
    machine.boot()
    assert machine.steps == ["pull", "create", "start", "wait", "stop"]
    assert machine.argv("stop") == ["stop", "-t", "30", NAME]
    assert machine.record.timed_out
    assert machine.record.exit_code == 137


def test_a_clock_that_steps_shortens_no_limit(machine: Machine, api: CallbackApi) -> None:
    # Each command of the agent takes a day by the time of day.
    step = machine.root / "step"
    step.write_text("set -o functrace; trap 'SECONDS=$((SECONDS + 86400))' DEBUG\n")
    machine.environment["BASH_ENV"] = str(step)
    api.statuses["PATCH"] = [503, 204]
    api.statuses["DELETE"] = [503, 204]
    machine.boot()
    assert api.methods == ["PUT", "PATCH", "PATCH", "DELETE", "DELETE"]
    assert machine.steps == ["pull", "create", "start", "wait"]
    assert machine.record.exit_code == 7
    assert not machine.record.timed_out


def test_a_spot_instance_that_is_taken_back_stops_its_container_and_says_so(
    machine: Machine, api: CallbackApi
) -> None:
    api.takes_spot_back = True
    machine.order(JobSpec(image="nginx"), capacity_type="spot")
    machine.boot()
    assert machine.argv("stop") == ["stop", "-t", "75", NAME]
    assert machine.record.interrupted
    assert not machine.record.stopped
    assert machine.record.reason is Reason.SPOT_INTERRUPTED


def test_an_on_demand_instance_does_not_ask(machine: Machine, api: CallbackApi) -> None:
    api.takes_spot_back = True
    machine.boot()
    assert not machine.record.interrupted


@pytest.mark.parametrize("status", [204, 422, 503])
def test_the_boot_callback_comes_before_the_pull_and_nothing_depends_on_it(
    machine: Machine, api: CallbackApi, status: int
) -> None:
    api.boot_status = status
    machine.boot()
    assert api.boot_calls[0].token == TOKEN
    assert machine.record.exit_code == 7


def test_a_container_killed_for_memory_is_reported_so(machine: Machine) -> None:
    machine.say(oom="true", code=137)
    machine.boot()
    assert machine.record.oom_killed
    assert not machine.record.timed_out


def test_a_killed_child_of_a_program_that_succeeds_is_no_failure(machine: Machine) -> None:
    machine.say(oom="true", code=0)
    machine.boot()
    assert machine.record.oom_killed
    assert machine.record.reason is Reason.COMPLETED


REGISTRY_ERRORS = re.findall(
    r"^\| `(.+?)` \| (refused|disk|limited|again) \| (.+) \| (.+) \| (.+) \|$",
    (SOURCE.parent / "docs/registry-errors.md").read_text(),
    re.MULTILINE,
)


def test_each_row_of_registry_errors_says_who_says_so_and_where_it_was_seen() -> None:
    rows = (SOURCE.parent / "docs/registry-errors.md").read_text().count("\n| `")
    assert len(REGISTRY_ERRORS) == rows
    assert {kind for _, kind, *_ in REGISTRY_ERRORS} == {"refused", "disk", "limited", "again"}
    place = re.compile(r"[\w.-]+/[\w.-]+#[0-9]+|here|no")
    for words, *_, seen in REGISTRY_ERRORS:
        for one in re.split(r", |; ", re.sub(r" \(.+?\)", "", seen)):
            assert place.fullmatch(one), f"{words}: where was it seen? {one!r}"


@pytest.mark.parametrize(("message", "kind"), [row[:2] for row in REGISTRY_ERRORS])
def test_what_a_registry_refuses_costs_one_question_and_anything_else_is_asked_again(
    machine: Machine, api: CallbackApi, message: str, kind: str
) -> None:
    message = f"Error response from daemon: {message}"
    machine.say(pull_fails=message)
    machine.boot()
    definite = kind in ("refused", "disk")
    assert machine.steps == ["pull"] * (1 if definite else 8)
    assert api.methods == ["DELETE"]
    record = machine.record
    assert (record.phase, record.definite, record.exit_code) == ("pull", definite, None)
    assert record.reason is (Reason.IMAGE_REFUSED if definite else Reason.PULL_FAILED)
    assert record.log_tail.decode() == f"{message}\n"


@pytest.mark.parametrize(
    "message",
    [
        'Get "https://r.example.com/v2/acme/forbidden/manifests/1": dial tcp: i/o timeout',
        "Get https://r.example.com/v2/acme/unauthorized/manifests/denied: EOF",
        'failed to resolve reference "docker.io/acme/denied:1": dial tcp: i/o timeout',
        "failed to register layer: open /usr/share/forbidden/unauthorized.html: input/output error",
    ],
)
def test_an_image_may_be_named_like_a_refusal(machine: Machine, message: str) -> None:
    machine.say(pull_fails=f"Error response from daemon: {message}")
    machine.boot()
    assert not machine.record.definite
    assert machine.steps == ["pull"] * 8


@pytest.mark.parametrize(
    ("words", "slept"),
    [
        # As GHCR says it: the agent's own pauses are longer.
        ("retry-after: 880.092µs, allowed: 44000/minute", [1, 2, 4, 8, 16, 32, 57]),
        ("retry-after: 1.16676ms, allowed: 44000/minute", [1, 2, 4, 8, 16, 32, 57]),
        ("retry-after: 1.5s, allowed: 44000/minute", [2, 2, 4, 8, 16, 32, 56]),
        ("retry-after: 50s, allowed: 44000/minute", [51, 51, 18]),
        ("retry-after: 1m08s", [69, 51]),
        # Longer than the pull may take: asked once more at the end.
        ("retry-after: 2h0m0s", [120]),
    ],
)
def test_a_rate_limit_is_waited_for_as_told(
    machine: Machine, words: str, slept: list[int]
) -> None:
    machine.say(pull_fails=f"Error response from daemon: toomanyrequests: {words}")
    machine.boot()
    assert machine.slept == slept
    assert machine.steps == ["pull"] * (len(slept) + 1)
    assert machine.record.reason is Reason.PULL_FAILED


@pytest.mark.parametrize(("pull_s", "pulls"), [(1, 2), (10, 5), (1620, 33)])
def test_a_registry_that_is_away_is_asked_for_as_long_as_the_deployment_says(
    machine: Machine, api: CallbackApi, pull_s: int, pulls: int
) -> None:
    machine.say(pull_fails="dial tcp: i/o timeout")
    whole = machine.manifest.read_bytes()
    machine.manifest.write_bytes(whole.replace(b"pull=120", f"pull={pull_s}".encode()))
    machine.boot()
    assert machine.steps == ["pull"] * pulls
    slept = list(map(int, (machine.bin / "slept").read_text().split()))
    assert sum(slept) == pull_s
    assert api.methods == ["DELETE"]


def test_a_container_that_can_not_be_created_is_reported(
    machine: Machine, api: CallbackApi
) -> None:
    machine.say(create_fails="invalid reference format")
    machine.boot()
    assert machine.steps == ["pull", "create"]
    assert api.methods == ["DELETE"]
    assert machine.record.phase == "create"
    assert machine.record.log_tail == b"invalid reference format\n"


def test_a_container_that_can_not_start_is_reported_without_an_exit_code(
    machine: Machine, api: CallbackApi
) -> None:
    machine.say(start_fails="exec: nope: executable file not found", code=127)
    machine.boot()
    assert api.methods == ["PUT", "PATCH", "DELETE"]
    assert machine.record.phase == "start"
    assert machine.record.exit_code is None
    assert machine.record.started_at is None
    assert b"executable file not found" in machine.record.log_tail


def test_a_client_that_fails_where_the_container_started_is_not_believed(machine: Machine) -> None:
    machine.say(status="running", started="2026-01-02T03:04:05Z", start_fails="EOF")
    machine.boot()
    assert machine.record.phase == "run"
    assert machine.record.exit_code == 7


def test_a_daemon_that_is_gone_leaves_the_exit_code_open(machine: Machine) -> None:
    machine.say(inspect_fails="Cannot connect to the Docker daemon")
    machine.boot()
    assert machine.record.phase == "run"
    assert machine.record.exit_code is None


def test_a_daemon_that_does_not_answer_for_a_while_ends_no_job(machine: Machine) -> None:
    machine.say(unanswered=12)
    machine.boot()
    assert machine.steps == ["pull", "create", "start", "wait"]
    assert machine.slept == [5] * 12
    assert machine.record.exit_code == 7


def test_a_daemon_that_does_not_answer_for_a_minute_is_given_up(machine: Machine) -> None:
    for command in ("pull", "create", "hold", "claim"):
        assert machine.agent(command) == 0
    machine.say(unanswered=13)
    assert machine.agent("run") == 1
    assert sum(machine.slept) == 60
    # It is back for the report: the program is not to blame.
    assert machine.agent("report", SERVICE_RESULT="exit-code") == 0
    assert machine.record.reason is Reason.INSTANCE_LOST


def test_a_program_that_its_machine_takes_along_is_not_to_blame(machine: Machine) -> None:
    for command in ("pull", "create", "hold", "claim"):
        assert machine.agent(command) == 0
    # The unit is stopped from outside, with the container running.
    machine.say(status="running", started="2026-01-02T03:04:05Z")
    assert machine.agent("report", SERVICE_RESULT="success") == 0
    assert machine.steps[-1] == "stop"
    assert machine.record.stopped
    assert machine.record.reason is Reason.INSTANCE_LOST
    assert machine.record.exit_code == 137
    assert machine.record.log_tail == b"\nand this\n"
    assert machine.record.service_result == "success"


def test_a_program_that_can_not_be_stopped_has_no_exit_code(machine: Machine) -> None:
    for command in ("pull", "create", "hold", "claim"):
        assert machine.agent(command) == 0
    # Of a container that runs, docker says 0.
    machine.say(status="running", started="2026-01-02T03:04:05Z", code=0, stop_fails="EOF")
    assert machine.agent("report", SERVICE_RESULT="success") == 0
    assert machine.record.phase == "run"
    assert machine.record.exit_code is None


@pytest.mark.parametrize("mark", ["timed_out", "interrupted"])
def test_a_program_already_being_stopped_keeps_the_reason_why(machine: Machine, mark: str) -> None:
    for command in ("pull", "create", "hold", "claim"):
        assert machine.agent(command) == 0
    machine.say(status="running", started="2026-01-02T03:04:05Z")
    (machine.root / "run/atemporal" / mark).touch()
    assert machine.agent("report", SERVICE_RESULT="success") == 0
    assert machine.steps[-1] == "stop"
    assert not machine.record.stopped


def test_a_second_boot_never_runs_again(machine: Machine, api: CallbackApi) -> None:
    machine.boot()
    steps, calls = machine.steps, list(api.calls)
    machine.boot()
    assert machine.steps == steps
    assert api.calls == calls
    assert "has been here before" in machine.console[-1]


def test_a_boot_that_lost_the_mark_claims_with_another_id(
    machine: Machine, api: CallbackApi
) -> None:
    machine.boot()
    shutil.rmtree(machine.root / "var")
    api.statuses["PATCH"] = [409]
    machine.boot()
    first, second = (call.body["claim"] for call in api.calls if call.method == "PATCH")
    assert first != second
    assert machine.steps.count("start") == 1


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        b"",
        b"attempt=1\0",
        b"surprise=1\0",
        "cut short",
        "not a number",
    ],
)
def test_a_damaged_manifest_ends_everything_at_once(
    machine: Machine, api: CallbackApi, manifest: bytes | str | None
) -> None:
    whole = machine.manifest.read_bytes()
    if manifest is None:
        machine.manifest.unlink()
    elif manifest == "cut short":
        machine.manifest.write_bytes(whole[:-1])
    elif manifest == "not a number":
        machine.manifest.write_bytes(whole.replace(b"deadline=600", b"deadline=x[$(reboot)]"))
    else:
        assert isinstance(manifest, bytes)
        machine.manifest.write_bytes(manifest)
    # Both units power off as soon as their command fails.
    for command in ("deadline", "pull", "create", "claim", "run", "report"):
        assert machine.agent(command) != 0
    assert machine.steps == []
    assert api.calls == []


def test_the_deadline_is_waited_for_in_one_sleep(machine: Machine) -> None:
    machine.order(JobSpec(image="nginx"), deadline_s=12_345)
    assert machine.agent("deadline") == 0
    assert machine.slept == [12_345]


@pytest.mark.parametrize("manifest", ["whole", "damaged"])
def test_the_deadline_does_not_wait_for_a_console_that_takes_nothing(
    machine: Machine, manifest: str
) -> None:
    # Opening it for writing waits for a reader, who never comes.
    os.mkfifo(machine.root / "dev/console")
    if manifest == "damaged":
        machine.manifest.write_bytes(b"")
    assert machine.agent("deadline") == (0 if manifest == "whole" else 1)


def test_the_token_is_in_nobodys_arguments(machine: Machine) -> None:
    machine.boot()
    arguments = (machine.bin / "curl.argv").read_text()
    assert "/callback" in arguments
    assert TOKEN not in arguments
    assert "Bearer" not in arguments


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
AWKWARD = ("", "-x", "--", "a\nb\n", "'\"`$HOME$(id)", "%n %%", "\\n\\", " ünï\t☃ ", "A=B")


@settings(max_examples=20)
@given(
    env=st.dictionaries(st.sampled_from("BCDEF"), st.sampled_from(AWKWARD) | TEXT),
    command=st.lists(st.sampled_from(AWKWARD) | TEXT, min_size=1, max_size=4)
    .filter(lambda words: bool(words[0]))
    .map(tuple),
)
def test_environment_and_command_arrive_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, env: dict[str, str], command: tuple[str, ...]
) -> None:
    # `create` talks to docker alone: this API is never reached.
    machine = Machine(tmp_path_factory.mktemp("machine"), CallbackApi("http://127.0.0.1:9"))
    (machine.root / "run/atemporal").mkdir(parents=True)
    asked = {"ports": ("80:8080",), "user": "1:2", "volumes": ("/a b",)}
    machine.order(JobSpec(image="nginx:1.9", env=env, command=command, **asked))
    assert machine.agent("create") == 0
    argv = machine.argv("create")
    image = argv.index("docker.io/library/nginx:1.9")
    assert tuple(argv[image + 1 :]) == command
    pairs = [f"{name}={value}" for name, value in sorted(env.items())]
    ours = ("-p", "80:8080", "--user=1:2", "--volume=/a b")
    options = [*ours, *(word for pair in pairs for word in ("-e", pair))]
    assert argv[image - len(options) : image] == options
    assert argv[:5] == ["create", "--name", NAME, "--pull", "never"]


@pytest.mark.parametrize("script", ["agent", "docker_installer", "log_shipper", "secret_resolver"])
def test_it_passes_shellcheck(script: str) -> None:
    check = _tool("shellcheck", "shellcheck")
    result = subprocess.run(
        [check, "--enable=quote-safe-variables,require-double-brackets", SOURCE / script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_what_a_machine_gets_is_the_same_program_as_the_source() -> None:
    def program(script: str) -> str:
        # Bash prints a function's body in one normal form, whatever its layout was.
        return subprocess.run(
            ["bash", "-c", f"f() {{\n{script}\n}}\ndeclare -f f"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    digest = hashlib.sha256(LOG_SHIPPER.encode()).hexdigest()[:32]
    agent = (SOURCE / "agent").read_text().replace("LOG_SHIPPER_DIGEST", digest)
    others = {"log_shipper": LOG_SHIPPER, "secret_resolver": SECRET_RESOLVER}
    sources = [
        (agent, AGENT),
        *(((SOURCE / name).read_text(), one) for name, one in others.items()),
    ]
    for source, sent in sources:
        assert program(source) == program(sent)
        assert len(sent) < len(source)


def test_the_units_pass_systemd_analyze(tmp_path: Path) -> None:
    analyze = _tool("systemd-analyze", "systemd")
    agent = tmp_path / "agent"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    units = {"atemporal-deadline.service": DEADLINE_UNIT, "atemporal-job.service": JOB_UNIT}
    for name, text in units.items():
        (tmp_path / name).write_text(text.replace("/opt/atemporal/bin/agent", str(agent)))
    result = subprocess.run(
        [analyze, "verify", "--man=no", *(tmp_path / name for name in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    # An unknown key is only a warning.
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def _tool(program: str, package: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert path, f"{program} is not installed; on Debian: apt-get install {package}"
    return path
