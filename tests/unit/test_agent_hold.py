"""A machine that is ready holds its container: it asks until it may claim, and starts at the time, by
the clock that counts and never before."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atemporal.model import JobSpec
from atemporal.states import Reason
from tests import callback_api
from tests.callback_api import Call, CallbackApi
from tests.unit.test_agent import DOCKER, Machine

# No run here is so long that its log is sent meanwhile.
REAL_SLEEP = """#!/usr/bin/env bash
[[ $1 != 5s ]] || exec /bin/sleep 20
echo "$1" >>"${0%/*}/slept"
exec /bin/sleep "$1"
"""
STEPS = ("pull", "create", "hold", "claim", "run")


@pytest.fixture
def api() -> Iterator[CallbackApi]:
    with callback_api.serve() as api:
        yield api


@pytest.fixture
def machine(tmp_path: Path, api: CallbackApi) -> Machine:
    return Machine(tmp_path, api)


def script(machine: Machine, name: str, text: str) -> None:
    path = machine.bin / name
    path.write_text(text)
    path.chmod(0o755)


def clock_says(machine: Machine, synchronised: str | None) -> None:
    """Make `timedatectl` say so, and `chronyc` nothing; None is a system with neither."""
    answer = "exit 1" if synchronised is None else f"echo {synchronised}"
    script(machine, "timedatectl", f"#!/usr/bin/env bash\n{answer}\n")
    script(machine, "chronyc", "#!/usr/bin/env bash\nexit 1\n")


def started_ms(machine: Machine) -> int:
    """When docker was asked to start the container, by the time of day."""
    return int((machine.docker / "start.ms").read_text())


def slow(machine: Machine, way: str) -> None:
    """Make each request, or each answer, two seconds long."""
    there, back = ("/bin/sleep 2", ":") if way == "there" else (":", "/bin/sleep 2")
    text = f'{there}\n"$REAL_CURL" "$@"\ncode=$?\n{back}\nexit $code\n'
    script(machine, "curl", f"#!/usr/bin/env bash\n{text}")


@pytest.fixture
def timed(machine: Machine) -> Machine:
    """A machine that really sleeps, and whose docker writes down when it is asked to start."""
    script(machine, "sleep", REAL_SLEEP)
    begins = "  start)\n    date +%s%3N >start.ms\n"
    script(machine, "docker", DOCKER.replace("  start)\n", begins, 1))
    return machine


def test_it_asks_again_until_it_may_claim_and_claims_once(
    machine: Machine, api: CallbackApi
) -> None:
    # The boot callback's answer, then those to the questions, then the claim's.
    api.holds = [(5000, 9000), (5000, 9000), (2000, 4000), (0, 2000), (0, 0)]
    machine.boot()
    assert api.methods == ["PUT", "PUT", "PUT", "PATCH", "DELETE"]
    assert machine.slept[:2] == [5.0, 2.0]
    assert api.body("PATCH")["holds"] is True
    assert len({call.body["claim"] for call in api.calls}) == 1
    assert machine.steps == ["pull", "create", "start", "wait"]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 422])
@pytest.mark.parametrize("asked", [0, 1, 3])
def test_one_that_is_refused_while_it_holds_never_runs_and_reports_nothing(
    machine: Machine, api: CallbackApi, status: int, asked: int
) -> None:
    api.holds = [(1000, 60_000)]
    api.statuses["PUT"] = [*[200] * asked, status]
    machine.boot()
    assert api.methods == ["PUT"] * (asked + 1)
    assert machine.steps == ["pull", "create"]


@pytest.mark.parametrize("statuses", [[503, 200], [405, 200], [425, 500, 200], [408, 429, 200]])
def test_an_api_that_is_away_or_older_is_asked_again(
    machine: Machine, api: CallbackApi, statuses: list[int]
) -> None:
    api.statuses["PUT"] = list(statuses)
    machine.boot()
    assert api.methods == [*["PUT"] * len(statuses), "PATCH", "DELETE"]
    assert machine.record.exit_code == 7


@pytest.mark.parametrize("statuses", [[503, 200], [500, 429, 200], [502, 504, 408, 200]])
def test_a_claim_that_is_not_answered_is_repeated(
    machine: Machine, api: CallbackApi, statuses: list[int]
) -> None:
    api.statuses["PATCH"] = list(statuses)
    machine.boot()
    assert api.methods == ["PUT", *["PATCH"] * len(statuses), "DELETE"]
    assert machine.steps == ["pull", "create", "start", "wait"]


@pytest.mark.parametrize(
    ("claims", "asked"),
    [
        ([425, 200], ["PUT", "PATCH", "PUT", "PUT", "PATCH"]),
        ([503, 425, 200], ["PUT", "PATCH", "PATCH", "PUT", "PUT", "PATCH"]),
        ([425, 425, 200], ["PUT", "PATCH", "PUT", "PUT", "PATCH", "PUT", "PATCH"]),
    ],
)
def test_one_whose_start_was_put_off_before_its_claim_holds_again(
    machine: Machine, api: CallbackApi, claims: list[int], asked: list[str]
) -> None:
    # The boot callback's answer, then that of the first question; then the start is put off.
    api.holds = [(0, 2000), (0, 2000), (4000, 6000), (0, 2000), (0, 0)]
    api.statuses["PATCH"] = list(claims)
    machine.boot()
    assert api.methods == [*asked, "DELETE"]
    assert 4.0 in machine.slept
    assert 0.5 in machine.slept
    assert len({call.body["claim"] for call in api.calls}) == 1
    assert machine.steps == ["pull", "create", "start", "wait"]


@pytest.mark.parametrize("status", [401, 404, 409, 422])
def test_one_that_is_refused_when_it_holds_again_never_runs(
    machine: Machine, api: CallbackApi, status: int
) -> None:
    api.statuses = {"PATCH": [425, 200], "PUT": [200, status]}
    machine.boot()
    assert api.methods == ["PUT", "PATCH", "PUT"]
    assert machine.steps == ["pull", "create"]


def test_a_spot_instance_that_is_taken_back_while_it_holds_again_says_so(
    machine: Machine, api: CallbackApi
) -> None:
    def take_back(call: callback_api.Call) -> None:
        api.takes_spot_back |= call.method == "PATCH"

    api.before_response = take_back
    api.holds = [(0, 2000), (0, 2000), (1000, 60_000)]
    api.statuses["PATCH"] = [425, 200]
    machine.order(JobSpec(image="nginx"), capacity_type="spot")
    machine.boot()
    assert api.methods == ["PUT", "PATCH", "PUT", "DELETE"]
    assert machine.steps == ["pull", "create"]
    assert machine.record.reason is Reason.SPOT_INTERRUPTED


@pytest.mark.parametrize(
    ("synchronised", "ahead_ms", "own"),
    [
        ("yes", 0, True),
        ("yes", 400, True),
        ("yes", -400, True),
        ("yes", 90_000, False),
        ("yes", -90_000, False),
        ("no", 0, False),
        ("no", 90_000, False),
        (None, 0, False),
        ("nonsense", 0, False),
    ],
)
def test_which_clock_counts_and_none_starts_early_by_it(
    timed: Machine, api: CallbackApi, synchronised: str | None, ahead_ms: int, own: bool
) -> None:
    clock_says(timed, synchronised)
    api.ahead_ms = ahead_ms
    api.holds = [(0, 0), (0, 1200)]
    timed.boot()
    time_ms, _, counts = (timed.root / "run/atemporal/start").read_text().split()
    assert counts == str(int(own))
    due_ms = int(time_ms) if own else api.answered_ms["PATCH"]
    assert started_ms(timed) >= due_ms
    news = api.body("PUT")["clock"]
    assert news["synchronised"] is {"yes": True, "no": False}.get(synchronised or "")
    # By what the boot callback was answered; a busy machine is slow to ask, not to count.
    assert abs(news["offset_ms"] + ahead_ms) < 30_000


@pytest.mark.parametrize(
    ("step_ms", "counts"),
    [
        (3_600_000, False),
        (10_000, False),
        (1_500, False),
        (400, True),
        (0, True),
        (-400, True),
        (-1_500, False),
        (-10_000, False),
        (-3_600_000, False),
    ],
)
def test_a_clock_that_steps_after_the_claim_counts_within_a_second_only(
    timed: Machine, api: CallbackApi, step_ms: int, counts: bool
) -> None:
    clock_says(timed, "yes")
    api.holds = [(0, 0), (0, 2000)]
    for step in STEPS[:-1]:
        assert timed.agent(step) == 0
    # To step forward is to be nearer to the time, for all that the machine can see.
    start = timed.root / "run/atemporal/start"
    time_ms, target, _ = start.read_text().split()
    start.write_text(f"{int(time_ms) - step_ms} {target} 1\n")
    before = len(timed.slept)
    assert timed.agent("run") == 7
    due_ms = api.answered_ms["PATCH"] - (step_ms if counts else 0)
    assert started_ms(timed) >= due_ms
    # No wait is longer than what was left when it claimed, and the hundredths of its counter.
    assert all(s <= 2.01 - (step_ms / 1000 if counts else 0) for s in timed.slept[before:])


@pytest.mark.parametrize(
    ("way", "ahead_ms"), [("there", -1_500), ("there", -1_200), ("back", 1_500), ("back", 0)]
)
def test_an_answer_that_took_long_proves_no_agreement(
    machine: Machine, api: CallbackApi, way: str, ahead_ms: int
) -> None:
    clock_says(machine, "yes")
    slow(machine, way)
    api.ahead_ms = ahead_ms
    for step in STEPS[:-1]:
        assert machine.agent(step) == 0
    assert api.body("PUT")["clock"] == {"synchronised": True, "offset_ms": None}
    assert (machine.root / "run/atemporal/start").read_text().split()[2] == "0"


@pytest.mark.parametrize("known", [0, 700, -90_000])
def test_an_answer_that_took_long_leaves_what_an_earlier_one_said(
    machine: Machine, api: CallbackApi, known: int
) -> None:
    clock_says(machine, "yes")
    for step in STEPS[:2]:
        assert machine.agent(step) == 0
    offset = machine.root / "run/atemporal/offset"
    offset.write_text(f"{known}\n")
    slow(machine, "back")
    for step in STEPS[2:4]:
        assert machine.agent(step) == 0
    assert int(offset.read_text()) == known


@pytest.mark.parametrize("ahead_ms", [90_000, -90_000, 3_600_000])
def test_an_answer_that_took_long_refutes_an_agreement(
    machine: Machine, api: CallbackApi, ahead_ms: int
) -> None:
    clock_says(machine, "yes")
    for step in STEPS[:2]:
        assert machine.agent(step) == 0
    offset = machine.root / "run/atemporal/offset"
    offset.write_text("0\n")
    slow(machine, "there")
    api.ahead_ms = ahead_ms
    assert machine.agent("hold") == 0
    assert abs(int(offset.read_text()) + ahead_ms) < 30_000


@pytest.mark.parametrize(
    ("text", "synchronised"),
    [
        ("Reference ID : C0A80101\nLeap status     : Normal", True),
        ("Reference ID : 00000000 ()\nLeap status     : Not synchronised", False),
        ("506 Cannot talk to daemon", None),
    ],
)
def test_where_systemd_does_not_say_chrony_is_asked(
    machine: Machine, api: CallbackApi, text: str, synchronised: bool | None
) -> None:
    clock_says(machine, None)
    script(machine, "chronyc", f"#!/usr/bin/env bash\ncat <<'E'\n{text}\nE\n")
    machine.boot()
    assert api.body("PUT")["clock"]["synchronised"] is synchronised


def test_a_claim_answered_by_an_older_api_starts_at_what_was_told_before(
    timed: Machine, api: CallbackApi
) -> None:
    clock_says(timed, "no")
    api.holds = [(0, 0), (0, 1200)]
    api.statuses["PATCH"] = [204]
    timed.boot()
    assert started_ms(timed) >= api.answered_ms["PUT"]
    assert timed.steps == ["pull", "create", "start", "wait"]


def test_one_that_is_late_starts_at_once(machine: Machine, api: CallbackApi) -> None:
    machine.boot()
    assert machine.slept == []
    assert machine.record.exit_code == 7


def test_it_tells_when_its_container_started(machine: Machine, api: CallbackApi) -> None:
    for step in STEPS[:-1]:
        assert machine.agent(step) == 0
    # The run lasts until the word has come.
    wait = "  wait)\n    for _ in {1..300}; do [[ -e heard ]] && break; /bin/sleep 0.1; done\n    "
    script(machine, "docker", DOCKER.replace("  wait) ", wait))
    api.when_started = lambda: (machine.docker / "heard").touch()
    assert machine.agent("run") == 7
    assert api.started.is_set()
    assert api.boot_calls[-1].body == {"started_at": "2026-01-02T03:04:05.123456789Z"}


def test_a_spot_instance_that_is_taken_back_while_it_holds_says_so(
    machine: Machine, api: CallbackApi
) -> None:
    api.takes_spot_back = True
    api.holds = [(1000, 60_000)]
    machine.order(JobSpec(image="nginx"), capacity_type="spot")
    machine.boot()
    assert machine.steps == ["pull", "create"]
    assert api.methods == ["PUT", "DELETE"]
    assert machine.record.reason is Reason.SPOT_INTERRUPTED


def test_an_answer_that_says_nothing_leads_to_the_claim(
    machine: Machine, api: CallbackApi
) -> None:
    api.statuses["PUT"] = [204]
    machine.boot()
    assert api.methods == ["PUT", "PATCH", "DELETE"]
    assert not re.search(r"granted", "\n".join(machine.console))


def test_a_claim_that_nobody_answers_is_soon_sent_again(timed: Machine, api: CallbackApi) -> None:
    """A dead replica behind a balancer costs two seconds of a start, not half a minute."""
    asked: list[float] = []

    def swallow(call: Call) -> None:
        if call.method == "PATCH":
            asked.append(time.monotonic())
            if len(asked) == 1:
                api.closed.wait(20)

    api.before_response = swallow
    timed.boot()
    assert 1.9 <= asked[1] - asked[0] <= 8
    assert timed.record.exit_code == 7
