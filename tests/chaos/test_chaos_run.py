"""A short chaos run on every run of the tests; and that its judge sees whatever is broken."""

from __future__ import annotations

import http.server
import random
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from atemporal.model import Attempt, AttemptRef, Job, Launch, parse_spec
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import jobs, launches
from atemporal.store.database import Database
from tests.chaos import run as chaos_run
from tests.chaos.clients import Receipts, Wanted
from tests.chaos.crew import Crew
from tests.chaos.exits import Asked, Run, broken_promises, read_runs
from tests.chaos.fault_injector import FaultInjector
from tests.chaos.fleet import Fleet
from tests.chaos.oracle import End
from tests.chaos.verdict import (
    Verdict,
    check_cloud,
    check_dead_letters,
    check_force,
    check_job,
    check_submits,
    timeline,
)
from tests.claims import claim_due

ID = UUID("0198c0de-0000-7000-8000-000000000001")
ON = "i-0123456789abcdef0"
SINCE = datetime(2030, 1, 1, tzinfo=UTC)
AT = SINCE.timestamp()
LAUNCH = Launch(
    image_id="ami-1", instance_type="t3.small", callback_base="", key_id="", deadline_s=1
)


@pytest.fixture
def job(database: Database) -> Job:
    with database.begin() as tx:
        spec = parse_spec({"image": "busybox", "key": "known"})
        return jobs.get(tx, jobs.submit_one(tx, spec, actor="test").job_id)


@pytest.mark.timeout(900)
def test_a_short_chaos_run_leaves_every_promise_whole(capsys: pytest.CaptureFixture[str]) -> None:
    status = chaos_run.main(["--seed", "5", "--jobs", "20", "--seconds", "25"])
    text = capsys.readouterr().out
    assert status == 0, text
    assert re.search(r"acknowledged +20\n", text), text
    assert re.search(r"containers at their end +[1-9]", text), text
    assert re.search(r"kill -9 \w+ +[1-9]", text), text


def attempt(reason: Reason, code: int | None = None, **fields: Any) -> Attempt:
    """An attempt that was launched, claimed 10 s later, ended after 20 s and closed after 30 s."""
    return Attempt(
        **{
            "job_id": ID,
            "number": 1,
            "state": AttemptState.CLOSED,
            "reason": reason,
            "exit_code": code,
            "launch": LAUNCH,
            "instance_id": ON,
            "created_at": SINCE,
            "running_at": SINCE + timedelta(seconds=10),
            "exited_at": SINCE + timedelta(seconds=20),
            "closed_at": SINCE + timedelta(seconds=30),
            **fields,
        }
    )


def ended(outcome: Outcome, *tries: Attempt, **spec: Any) -> Job:
    """A finished job with these attempts."""
    return Job(
        id=ID,
        spec=parse_spec({"image": "busybox", "key": "known", **spec}),
        state=JobState.FINISHED,
        outcome=outcome,
        attempt=len(tries),
        run_at=SINCE,
        due_at=SINCE,
        created_at=SINCE,
        updated_at=SINCE,
        attempts=tries,
    )


WHOLE = Run(ID, 1, ON, AT + 11, AT + 12)
CUT = Run(ID, 1, ON, AT + 11)
COMPLETED = ended(Outcome.SUCCEEDED, attempt(Reason.COMPLETED, 0))
CANCELLED = ended(Outcome.CANCELLED, attempt(Reason.CANCELLED))
LOST_THEN_DONE = (attempt(Reason.INSTANCE_LOST), attempt(Reason.COMPLETED, 0, number=2))
AGAIN = Run(ID, 2, ON, AT + 41, AT + 42)


class TestExits:
    @pytest.mark.parametrize(
        ("of", "asked", "runs", "deaths"),
        [
            (COMPLETED, Asked(0), [WHOLE], {}),
            (ended(Outcome.FAILED, attempt(Reason.EXIT_NONZERO, 7)), Asked(7), [WHOLE], {}),
            (CANCELLED, Asked(0, cancel=True, cancelled=True), [CUT], {}),
            (CANCELLED, Asked(0, cancel=True), [WHOLE], {}),
            (ended(Outcome.SUCCEEDED, *LOST_THEN_DONE), Asked(0), [CUT, AGAIN], {ON: [AT + 13]}),
            (ended(Outcome.SUCCEEDED, *LOST_THEN_DONE), Asked(0), [WHOLE, AGAIN], {ON: [AT + 13]}),
            (
                ended(
                    Outcome.SUCCEEDED,
                    attempt(Reason.BOOT_DEADLINE, running_at=None),
                    attempt(Reason.COMPLETED, 0, number=2),
                ),
                Asked(0),
                [AGAIN],
                {},
            ),
        ],
    )
    def test_what_was_promised_is_whole(
        self, of: Job, asked: Asked, runs: list[Run], deaths: dict[str, list[float]]
    ) -> None:
        assert list(broken_promises(of, asked, runs, deaths)) == []

    @pytest.mark.parametrize("reason", [Reason.INSTANCE_LOST, Reason.UNREPORTED, Reason.TIMED_OUT])
    def test_an_end_that_was_not_booked_is_seen(self, reason: Reason) -> None:
        of = ended(reason.outcome, attempt(reason))
        assert f"#1 ran to its end with 0, recorded is {reason}" in list(
            broken_promises(of, Asked(0), [WHOLE])
        )

    def test_a_death_long_after_the_end_excuses_nothing(self) -> None:
        of = ended(Outcome.SUCCEEDED, *LOST_THEN_DONE)
        broken = list(broken_promises(of, Asked(0), [WHOLE, AGAIN], {ON: [AT + 60]}))
        assert broken == ["#1 ran to its end with 0, recorded is instance_lost"]

    def test_a_death_does_not_excuse_unreported(self) -> None:
        of = ended(Outcome.LOST, attempt(Reason.UNREPORTED))
        assert list(broken_promises(of, Asked(0), [WHOLE], {ON: [AT + 13]}))

    @pytest.mark.parametrize(
        ("reason", "recorded", "gave"),
        [
            (Reason.SIGNALLED, 137, 0),
            (Reason.CANCELLED, 143, 0),
            (Reason.EXIT_NONZERO, 75, 7),
            (Reason.COMPLETED, 0, 7),
            (Reason.COMPLETED, None, 0),
        ],
    )
    def test_another_exit_code_is_seen(
        self, reason: Reason, recorded: int | None, gave: int
    ) -> None:
        of = ended(reason.outcome, attempt(reason, recorded))
        broken = list(broken_promises(of, Asked(gave, cancel=True), [WHOLE]))
        assert f"#1 ended with {gave}, recorded is exit {recorded} ({reason})" in broken

    def test_a_container_that_nobody_ended_and_that_did_not_end_is_seen(self) -> None:
        of = ended(Outcome.SUCCEEDED, *LOST_THEN_DONE)
        text = "#1 was cut short, recorded is instance_lost, and nothing is known that explains it"
        assert list(broken_promises(of, Asked(0), [CUT, AGAIN])) == [text]
        assert text.replace("was cut short", "never started") in list(
            broken_promises(of, Asked(0), [AGAIN])
        )

    def test_an_instance_called_lost_that_nobody_ended_is_seen(self) -> None:
        first = attempt(Reason.INSTANCE_LOST, running_at=None)
        of = ended(Outcome.SUCCEEDED, first, LOST_THEN_DONE[1])
        assert list(broken_promises(of, Asked(0), [AGAIN], {ON: [AT + 5]})) == []
        assert list(broken_promises(of, Asked(0), [AGAIN])) == [
            "#1 is recorded as instance_lost, and nobody had ended its instance"
        ]

    @pytest.mark.parametrize("claimed_at", [None, SINCE])
    @pytest.mark.parametrize("reason", [Reason.START_FAILED, Reason.CREATE_FAILED])
    def test_a_program_that_is_blamed_and_never_started_is_seen(
        self, reason: Reason, claimed_at: datetime | None
    ) -> None:
        of = ended(Outcome.FAILED, attempt(reason, running_at=claimed_at))
        broken = list(broken_promises(of, Asked(7), [], {ON: [AT + 13]}))
        assert broken[0].startswith(f"#1 never started, recorded is {reason}")

    def test_a_success_without_a_run_is_seen(self) -> None:
        for runs in ([], [CUT]):
            broken = list(broken_promises(COMPLETED, Asked(0), runs))
            assert any("recorded is exit 0" in promise for promise in broken)

    def test_two_containers_for_an_attempt_are_seen(self) -> None:
        assert "#1 started 2 times" in list(broken_promises(COMPLETED, Asked(0), [WHOLE, WHOLE]))

    def test_a_container_without_a_claim_or_on_another_machine_is_seen(self) -> None:
        of = ended(Outcome.SUCCEEDED, attempt(Reason.COMPLETED, 0, running_at=None))
        assert "#1 started without a claim" in list(broken_promises(of, Asked(0), [WHOLE]))
        stranger = Run(ID, 1, "i-1", AT + 11, AT + 12)
        assert f"#1 ran on i-1, recorded is {ON}" in list(
            broken_promises(COMPLETED, Asked(0), [stranger])
        )

    def test_a_program_that_ended_too_often_or_not_often_enough_is_seen(self) -> None:
        first, second = attempt(Reason.EXIT_NONZERO, 7), attempt(Reason.EXIT_NONZERO, 7, number=2)
        twice = ended(Outcome.FAILED, first, second)
        assert list(broken_promises(twice, Asked(7), [WHOLE, AGAIN])) != []
        once = ended(Outcome.FAILED, first, max_attempts=2)
        assert list(broken_promises(once, Asked(7), [WHOLE])) == [
            "failed after 1 ends of its program with 7"
        ]

    def test_a_cancel_that_was_told_and_is_not_booked_is_seen_and_one_nobody_asked_for(
        self,
    ) -> None:
        assert list(broken_promises(COMPLETED, Asked(0, True, True), [WHOLE])) == [
            "cancelled, and succeeded"
        ]
        assert "cancelled, and nobody asked for it" in list(
            broken_promises(CANCELLED, Asked(0), [CUT])
        )

    def test_what_containers_write_is_read_back(self, tmp_path: Path) -> None:
        scratch = f"/tmp/twin/instances/{ON}/root/var/lib/docker/atemporal-{ID}.1/scratch"
        runs = tmp_path / "known"
        runs.write_text(f"start {AT + 11} {scratch}\nend {AT + 12} {scratch}\n")
        assert read_runs(runs) == [WHOLE]
        runs.write_text(f"end {AT + 12} {scratch}\n")
        with pytest.raises(ValueError, match="without a start"):
            read_runs(runs)
        verdict = Verdict()
        check_job(verdict, COMPLETED, Asked(0), tmp_path)
        assert [job_id for _, job_id in verdict.broken] == [ID]

    def test_a_job_that_did_not_end_is_seen(self, job: Job, tmp_path: Path) -> None:
        verdict = Verdict()
        check_job(verdict, job, Asked(0), tmp_path)
        assert verdict.broken == [("still scheduled", job.id)]


def test_a_submit_that_was_lost_or_became_two_jobs_is_seen(job: Job) -> None:
    other = Wanted("known", 0, {}, "http", job_id="another")
    lost = Wanted("unknown", 0, {}, "http", job_id="gone")
    verdict = Verdict()
    check_submits(verdict, Receipts([other, lost]), {"known": job}, 1)
    assert (verdict.counts["lost"], verdict.counts["duplicates"]) == (1, 1)
    assert len(verdict.broken) == 2


def test_a_confirmed_message_that_became_no_job_is_seen(job: Job) -> None:
    here = Wanted("known", 0, {}, "amqp", job_id=str(job.id), confirmed=True, left_alone=True)
    gone = Wanted("vanished", 0, {}, "amqp", confirmed=True, left_alone=True)
    never = Wanted("refused", 0, {}, "amqp")
    verdict = Verdict()
    check_submits(verdict, Receipts([here, gone, never]), {"known": job}, 1)
    assert verdict.broken == [("confirmed job messages are lost: vanished", None)]


class TestCloud:
    def listing(self, *ids: str, state: str = "terminated") -> list[dict[str, Any]]:
        tags = {"atemporal:job": str(ID), "atemporal:attempt": "1"}
        return [
            {
                "InstanceId": one,
                "State": {"Name": state},
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
            for one in ids
        ]

    def verdict_of(self, listing: list[dict[str, Any]], ended_at: float = AT + 25) -> Verdict:
        verdict = Verdict()
        check_cloud(verdict, [COMPLETED], listing, {ON: End(ended_at, "")}, 60)
        return verdict

    def test_records_in_sync(self) -> None:
        verdict = self.verdict_of(self.listing(ON))
        assert verdict.broken == []
        assert verdict.counts["worst leak by the database, s"] == 10
        assert verdict.counts["worst leak by the cloud, s"] == 5

    def test_a_leaked_instance_is_seen(self) -> None:
        verdict = self.verdict_of(self.listing(ON, state="running"))
        assert verdict.broken == [(f"1 instances leaked: {ON}", None)]

    def test_two_instances_for_an_attempt_are_seen_and_one_that_nobody_knows(self) -> None:
        verdict = self.verdict_of(self.listing(ON, "i-1"))
        assert verdict.broken == [
            ("1 attempts have two instances", None),
            ("1 instances belong to no attempt: i-1", None),
        ]

    def test_an_instance_that_stayed_is_seen_by_its_own_end(self) -> None:
        verdict = self.verdict_of(self.listing(ON), ended_at=AT + 90)
        assert ("an instance outlived its attempt by 70 s", None) in verdict.broken

    def test_an_attempt_closed_while_its_instance_lived_is_seen(self) -> None:
        verdict = self.verdict_of(self.listing(ON), ended_at=AT + 33)
        assert verdict.broken == [(f"#1 is recorded as closed 3.0 s before {ON} ended", ID)]


def test_poison_that_is_not_in_the_dead_letters_is_seen() -> None:
    verdict = Verdict()
    check_dead_letters(verdict, ["poison-0", "other"], ["poison-0", "poison-1"])
    assert verdict.broken == [('poison not in the dead letters: ["poison-1"]', None)]


class TestForce:
    def verdict_of(self, *, full: bool = True, **changed: Any) -> list[str]:
        counts = {"attempted": 9, "acknowledged": 9, "of these up to the limit": 1}
        verdict = Verdict(counts={**counts, **changed.pop("counts", {})})
        given: dict[str, Any] = {
            "faults": {"kill -9 api": 60, "kill -9 twin": 40, "hidden": 1},
            "kinds": {"hidden"},
            "seconds": 300,
            "jobs_asked": 9,
            **changed,
        }
        check_force(verdict, **given, full=full)
        return [promise for promise, _ in verdict.broken]

    def test_a_full_chaos_run_has_its_kills_its_kinds_and_its_jobs(self) -> None:
        assert self.verdict_of() == []
        assert self.verdict_of(seconds=301) == ["100 kills in 301 s: one in three is due"]
        assert self.verdict_of(kinds={"hidden", "dies"}) == ["no fault of kind dies was injected"]
        assert self.verdict_of(counts={"acknowledged": 8}) == [
            "8 jobs acknowledged, 9 were asked for"
        ]
        assert len(self.verdict_of(jobs_asked=10)) == 2
        assert self.verdict_of(counts={"of these up to the limit": 0}) == [
            "the concurrency limit was never reached: it kept nobody back"
        ]

    def test_a_short_chaos_run_has_at_least_a_fault(self) -> None:
        assert self.verdict_of(full=False, kinds={"dies"}) == []
        assert self.verdict_of(full=False, faults={}) == [
            "no fault was injected: this shows nothing"
        ]


class _Credulous(http.server.BaseHTTPRequestHandler):
    """An API that believes every callback."""

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    do_PUT = do_DELETE = do_PATCH

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.fixture
def credulous_url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Credulous) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_forged_callback_that_is_believed_is_seen(
    database: Database, job: Job, credulous_url: str
) -> None:
    with database.begin() as tx:
        claim_due(tx, 1, actor="test")
        assert launches.begin(tx, AttemptRef(job.id, 1), LAUNCH, actor="test")
    fleet = SimpleNamespace(replicas=["api-0"], database=database, api_url=credulous_url)
    injector = FaultInjector(cast(Fleet, fleet), random.Random(1), kill_every_s=1)
    injector.forge()
    [(text, job_id)] = injector.broken
    assert job_id == job.id
    assert re.fullmatch(r"a forged (PUT|PATCH|DELETE) for attempt 1 was answered 204", text)


def test_a_thread_that_dies_is_named_with_what_it_died_of() -> None:
    def do() -> None:
        raise AssertionError("nobody listens")

    crew = Crew()
    crew.add("digger", do)
    crew.start()
    crew.join()
    [failure] = crew.failures
    assert "the thread digger died" in failure
    assert "nobody listens" in failure


def test_a_broken_jobs_timeline_has_its_events_and_what_went_on_around_them(
    database: Database, job: Job
) -> None:
    at = job.created_at.timestamp()
    text = timeline(database, job.id, [(at + 1, "fault: pg restart"), (at - 60, "long before")])
    assert re.search(r"2\.\d\d s  job.scheduled", text), text
    assert re.search(r"3\.\d\d s      fault: pg restart", text), text
    assert "long before" not in text
