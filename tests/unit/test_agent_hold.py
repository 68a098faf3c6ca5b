"""A machine that is ready holds its container: it asks until it may claim, and starts at the time, by
the clock that counts and never before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from atemporal.model import JobSpec
from atemporal.states import Reason
from tests import callback_api
from tests.callback_api import CallbackApi
from tests.unit.test_agent import DOCKER, Machine

REAL_SLEEP = '#!/usr/bin/env bash\necho "$1" >>"${0%/*}/slept"\nexec /bin/sleep "$1"\n'
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


@pytest.mark.parametrize("status", [425, 503])
def test_a_claim_that_comes_too_early_is_repeated(
    machine: Machine, api: CallbackApi, status: int
) -> None:
    api.statuses["PATCH"] = [status, status, 200]
    machine.boot()
    # Too early: it was given another time, and learns of it before it claims again.
    again = ["PUT", "PATCH"] if status == 425 else ["PATCH"]
    assert api.methods == ["PUT", "PATCH", *again, *again, "DELETE"]
    assert machine.steps == ["pull", "create", "start", "wait"]


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


@pytest.mark.parametrize("step_s", [3600, 5, -5, -3600])
def test_a_clock_that_steps_after_the_claim_neither_hastens_nor_delays_the_start(
    timed: Machine, api: CallbackApi, step_s: int
) -> None:
    clock_says(timed, "yes")
    api.holds = [(0, 0), (0, 1500)]
    for command in STEPS[:-1]:
        assert timed.agent(command) == 0
    time_ms, _, counts = (timed.root / "run/atemporal/start").read_text().split()
    assert counts == "1"
    stepped = timed.root / "stepped"
    stepped.write_text(
        f"unset EPOCHREALTIME\nEPOCHREALTIME={int(time_ms) // 1000 + step_s}.000000\n"
    )
    timed.agent("run", BASH_ENV=str(stepped))
    assert started_ms(timed) >= api.answered_ms["PATCH"]
    assert all(float(pause) < 5 for pause in (timed.bin / "slept").read_text().split())


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
