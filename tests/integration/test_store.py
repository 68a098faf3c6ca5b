"""The store's promises on a real Postgres."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, cast, event, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.clock import parse_utc
from atemporal.errors import Conflict, Invalid, NotFound, Unavailable, Unreadable
from atemporal.model import AttemptRef, ExitRecord, JobSpec, Launch, parse_spec
from atemporal.states import (
    AttemptState,
    JobState,
    Outcome,
    Reason,
)
from atemporal.store import attempts, due, events, jobs, launches, listing, reconciliation, rows
from atemporal.store.database import Database
from atemporal.tables import attempts as attempt_table
from atemporal.tables import jobs as job_table
from tests.claims import claim_due

LAUNCH = Launch(
    image_id="ami-1",
    instance_type="t3.small",
    callback_base="http://127.0.0.1:1",
    key_id="k1",
    deadline_s=3600,
)


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events, api_tokens CASCADE"))


def spec(**fields: Any) -> JobSpec:
    return parse_spec({"image": "busybox", **fields})


def submitted(tx: Connection, **fields: Any) -> UUID:
    return jobs.submit_one(tx, spec(**fields), actor="test").job_id


def queued(tx: Connection, **fields: Any) -> AttemptRef:
    job_id = submitted(tx, **fields)
    (ref,) = claim_due(tx, 10, actor="test")
    assert ref == AttemptRef(job_id, 1)
    return ref


def warming(tx: Connection, **fields: Any) -> AttemptRef:
    ref = queued(tx, **fields)
    assert launches.begin(tx, ref, LAUNCH, actor="test")
    assert attempts.launched(tx, ref, f"i-{ref.job_id.hex[-17:]}", actor="test")
    return ref


def running(tx: Connection, **fields: Any) -> AttemptRef:
    ref = warming(tx, **fields)
    assert attempts.claim(tx, ref, claim_id="c1", instance_id=None, actor="test")
    return ref


def ended(tx: Connection, ref: AttemptRef, code: int) -> None:
    record = ExitRecord(exit_code=code)
    assert attempts.end(tx, ref, record.reason, actor="test", exit_record=record)


class TestSubmit:
    def test_writes_the_job_and_its_first_event(self, database: Database) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, env={"A": "1\n2 $x %"}, command=["sh", "-c", "exit 7"])
            job = jobs.get(tx, job_id)
            history = events.of_job(tx, job_id)
        assert job.spec.env == {"A": "1\n2 $x %"}
        assert job.spec.command == ("sh", "-c", "exit 7")
        assert (job.state, job.attempt) == (JobState.SCHEDULED, 0)
        assert [event.type for event in history] == ["job.scheduled"]

    def test_same_key_and_specification_give_the_same_job(self, database: Database) -> None:
        with database.begin() as tx:
            first = jobs.submit_one(tx, spec(key="k"), actor="a")
            second = jobs.submit_one(tx, spec(key="k"), actor="a")
        assert first.created
        assert not second.created
        assert first.job_id == second.job_id

    def test_same_key_and_another_specification_is_refused_saying_what_differs(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            submitted(tx, key="k", env={"TOKEN": "old-secret"}, timeout_s=60)
        with database.begin() as tx, pytest.raises(Conflict) as refusal:
            submitted(tx, key="k", env={"TOKEN": "new-secret"}, timeout_s=61)
        assert "timeout_s: 60 there, 61 here" in str(refusal.value)
        assert "variables TOKEN" in str(refusal.value)
        assert "secret" not in str(refusal.value)

    def test_a_key_twice_in_one_batch_is_one_job(self, database: Database) -> None:
        with database.begin() as tx:
            done = jobs.submit(tx, [spec(key="k"), spec(), spec(key="k")], actor="a")
        assert [one.created for one in done] == [True, True, False]
        assert done[0].job_id == done[2].job_id

    def test_two_submitters_of_one_key_at_once_make_one_job(self, database: Database) -> None:
        made: list[bool] = []
        barrier = threading.Barrier(4)

        def submitter() -> None:
            barrier.wait()
            with database.begin() as tx:
                made.append(jobs.submit_one(tx, spec(key="same"), actor="a").created)

        threads = [threading.Thread(target=submitter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [False, False, False, True]

    def test_what_no_machine_could_hold_is_refused(self, database: Database) -> None:
        with database.begin() as tx, pytest.raises(Invalid) as refusal:
            submitted(tx, env={"BIG": random.Random(7).randbytes(10_000).hex()}, delivery="inline")
        assert "env" in refusal.value.fields

    def test_time_past_or_absent_means_now_and_a_delay_counts_from_now(
        self, database: Database
    ) -> None:
        past = datetime(2015, 4, 25, tzinfo=UTC)
        with database.begin() as tx:
            jobs.get(tx, submitted(tx, run_at=past))
            later = jobs.get(tx, submitted(tx, delay_s=600))
            assert len(claim_due(tx, 10, actor="t")) == 1
        assert timedelta(seconds=599) < later.due_at - later.created_at < timedelta(seconds=601)


class TestClaimDue:
    def test_nothing_is_claimed_before_its_time(self, database: Database) -> None:
        with database.begin() as tx:
            submitted(tx, delay_s=600)
            submitted(tx, delay_s=60, lead=0)
            submitted(tx, delay_s=60, lead=30)
            assert claim_due(tx, 10, actor="t") == []
            (level,) = due.survey(tx)
        # The launch of one with a lead begins before it is due.
        assert 28 < level.wait_s < 31

    def test_each_job_goes_to_one_of_many_schedulers(self, database: Database) -> None:
        with database.begin() as tx:
            wanted = {one.job_id for one in jobs.submit(tx, [spec()] * 300, actor="a")}
        claimed: list[UUID] = []

        def scheduler() -> None:
            while True:
                with database.begin() as tx:
                    batch = claim_due(tx, 7, actor="t")
                claimed.extend(ref.job_id for ref in batch)
                if not batch:
                    return

        threads = [threading.Thread(target=scheduler) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(claimed) == 300
        assert set(claimed) == wanted

    def test_a_rolled_back_claim_leaves_the_job_scheduled(self, database: Database) -> None:
        with database.begin() as tx:
            submitted(tx)

        def claim_and_fail() -> None:
            with database.begin() as tx:
                assert claim_due(tx, 10, actor="t")
                raise RuntimeError("the broker did not confirm")

        with pytest.raises(RuntimeError):
            claim_and_fail()
        with database.begin() as tx:
            assert len(claim_due(tx, 10, actor="t")) == 1

    def test_higher_priority_first(self, database: Database) -> None:
        with database.begin() as tx:
            low, high = submitted(tx, priority=-1), submitted(tx, priority=5)
            assert [ref.job_id for ref in claim_due(tx, 2, actor="t")] == [high, low]

    def test_a_submit_due_now_notifies_a_sleeping_scheduler(self, database: Database) -> None:
        listener = database.listen()
        try:
            with database.begin() as tx:
                submitted(tx, delay_s=600)
            assert not listener.wait(0.05)
            with database.begin() as tx:
                submitted(tx)
            assert listener.wait(5)
        finally:
            listener.close()


class TestAttempt:
    def test_the_whole_way(self, database: Database) -> None:
        with database.begin() as tx:
            ref = running(tx)
            ended(tx, ref, 0)
            assert attempts.close(tx, ref, actor="test")
            job = jobs.get(tx, ref.job_id)
            history = [event.type for event in events.of_job(tx, ref.job_id)]
        assert (job.state, job.outcome) == (JobState.FINISHED, Outcome.SUCCEEDED)
        assert job.exit_code == 0
        assert history == [
            "job.scheduled",
            "job.queued",
            "job.warming",
            "attempt.launching",
            "attempt.warming",
            "job.running",
            "attempt.running",
            "attempt.exited",
            "job.finished.succeeded",
            "attempt.closed",
        ]

    def test_a_late_word_of_nothing_leaves_the_address_that_is_known(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            ref = warming(tx)
            attempts.set_address(tx, ref, "ec2.example", None)
            attempts.set_address(tx, ref, None, "192.0.2.1")
            attempts.set_address(tx, ref, None, None)
            known = attempts.get(tx, ref)
        assert known is not None
        assert (known.public_dns, known.public_ip) == ("ec2.example", "192.0.2.1")

    def test_a_job_is_begun_once(self, database: Database) -> None:
        with database.begin() as tx:
            ref = queued(tx)
            assert launches.begin(tx, ref, LAUNCH, actor="a")
            assert not launches.begin(tx, ref, LAUNCH, actor="b")
            assert jobs.lock_queued(tx, [ref]) == {}

    def test_only_the_first_machine_is_granted_and_may_ask_again(self, database: Database) -> None:
        with database.begin() as tx:
            ref = warming(tx)
            assert attempts.claim(tx, ref, claim_id="one", instance_id=None, actor="m")
            assert not attempts.claim(tx, ref, claim_id="one", instance_id=None, actor="m")
        for other in ("two", None):
            with database.begin() as tx, pytest.raises(Conflict):
                attempts.claim(tx, ref, claim_id=other, instance_id=None, actor="m")

    def test_another_instance_than_the_one_written_down_is_refused(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            ref = warming(tx)
        with database.begin() as tx, pytest.raises(Conflict, match="belongs to instance"):
            attempts.claim(tx, ref, claim_id="one", instance_id="i-other", actor="m")

    def test_a_claim_can_be_faster_than_the_launcher(self, database: Database) -> None:
        with database.begin() as tx:
            ref = queued(tx)
            launches.begin(tx, ref, LAUNCH, actor="a")
            attempts.claim(tx, ref, claim_id="one", instance_id="i-1", actor="m")
            assert not attempts.launched(tx, ref, "i-1", actor="a")
            attempt = attempts.get(tx, ref)
        assert attempt is not None
        assert (attempt.state, attempt.instance_id) == (AttemptState.RUNNING, "i-1")

    def test_an_end_is_written_once(self, database: Database) -> None:
        with database.begin() as tx:
            ref = running(tx)
            ended(tx, ref, 3)
            assert not attempts.end(tx, ref, Reason.INSTANCE_LOST, actor="late")
            job = jobs.get(tx, ref.job_id)
        assert (job.outcome, job.reason, job.exit_code) == (
            Outcome.FAILED,
            Reason.EXIT_NONZERO,
            3,
        )

    def test_a_failing_program_gets_its_attempts_and_no_more(self, database: Database) -> None:
        with database.begin() as tx:
            first = running(tx, max_attempts=2, backoff_s=0)
            ended(tx, first, 1)
            assert jobs.get(tx, first.job_id).state is JobState.SCHEDULED
            (second,) = claim_due(tx, 10, actor="t")
            assert second.number == 2
            launches.begin(tx, second, LAUNCH, actor="a")
            assert attempts.claim(tx, second, claim_id="x", instance_id=None, actor="m")
            ended(tx, second, 1)
            assert jobs.get(tx, first.job_id).state is JobState.FINISHED

    def test_the_infrastructure_has_a_budget_of_its_own(self, database: Database) -> None:
        with database.begin() as tx:
            ref = warming(tx, max_attempts=1, infra_retries=1, backoff_s=0)
            attempts.end(tx, ref, Reason.BOOT_DEADLINE, actor="t")
            (again,) = claim_due(tx, 10, actor="t")
            launches.begin(tx, again, LAUNCH, actor="a")
            attempts.end(tx, again, Reason.INSTANCE_LOST, actor="t")
            job = jobs.get(tx, ref.job_id)
        assert (job.state, job.outcome) == (JobState.FINISHED, Outcome.LOST)

    def test_messages_about_an_older_attempt_change_nothing(self, database: Database) -> None:
        with database.begin() as tx:
            first = running(tx, max_attempts=2, backoff_s=0)
            ended(tx, first, 1)
            (second,) = claim_due(tx, 10, actor="t")
            launches.begin(tx, second, LAUNCH, actor="a")
            assert not launches.begin(tx, first, LAUNCH, actor="late")
            assert not attempts.end(tx, first, Reason.COMPLETED, actor="late")
            assert jobs.get(tx, first.job_id).state is JobState.WARMING

    def test_leases_are_taken_by_one(self, database: Database) -> None:
        with database.begin() as tx:
            ref = queued(tx)
            launches.begin(tx, ref, LAUNCH, actor="a")
            tx.execute(text("UPDATE attempts SET called_at = now() - interval '1 hour'"))
            assert attempts.lease_unlaunched(tx, stale_s=30, limit=5) == [ref]
            assert attempts.lease_unlaunched(tx, stale_s=30, limit=5) == []

    def test_those_that_wait_longest_are_leased_first(self, database: Database) -> None:
        with database.begin() as tx:
            refs = [queued(tx) for _ in range(3)]
            for ref, minutes in zip(refs, (1, 3, 2), strict=True):
                launches.begin(tx, ref, LAUNCH, actor="a")
                tx.execute(
                    update(attempt_table)
                    .where(attempt_table.c.job_id == ref.job_id)
                    .values(
                        # A repeated call says nothing about how long it waits.
                        called_at=func.now() - timedelta(hours=10) / minutes,
                        created_at=func.now() - timedelta(hours=minutes),
                    )
                )
            order = [attempts.lease_unlaunched(tx, stale_s=30, limit=1) for _ in refs]
        assert order == [[refs[1]], [refs[2]], [refs[0]]]

    def test_a_queued_job_that_nobody_took_is_found(self, database: Database) -> None:
        with database.begin() as tx:
            ref = queued(tx)
            assert jobs.overlooked(tx, stale_s=30, limit=5) == []
            tx.execute(text("UPDATE jobs SET updated_at = now() - interval '1 hour'"))
            assert jobs.overlooked(tx, stale_s=30, limit=5) == [ref]
            assert jobs.overlooked(tx, stale_s=30, limit=5) == []

    def test_a_claim_with_another_attempts_instance_is_refused(self, database: Database) -> None:
        with database.begin() as tx:
            first = warming(tx)
            taken = attempts.get(tx, first)
            second = queued(tx)
            launches.begin(tx, second, LAUNCH, actor="a")
        assert taken is not None
        with pytest.raises(Conflict), database.begin() as tx:
            attempts.claim(tx, second, claim_id="c", instance_id=taken.instance_id, actor="m")

    def test_writing_an_instance_down_and_claiming_it_at_once_never_deadlock(
        self, database: Database
    ) -> None:
        """The launcher and the machine meet at every fast boot."""
        failures: list[Exception] = []

        def together(*works: Callable[[Connection], object]) -> None:
            barrier = threading.Barrier(len(works))

            def do(work: Callable[[Connection], object]) -> None:
                barrier.wait()
                try:
                    with database.begin() as tx:
                        work(tx)
                except Exception as error:  # noqa: BLE001 - told below
                    failures.append(error)

            threads = [threading.Thread(target=do, args=(work,)) for work in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        for number in range(40):
            with database.begin() as tx:
                ref = queued(tx)
                launches.begin(tx, ref, LAUNCH, actor="a")
            together(
                partial(attempts.launched, ref=ref, instance_id=f"i-{number}", actor="l"),
                partial(attempts.claim, ref=ref, claim_id="c", instance_id=None, actor="m"),
            )
        assert failures == []


class TestStored:
    def test_what_a_newer_release_wrote_is_read(self, database: Database) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, key="k", machine={"instance_types": ["t3.small"]})
            tx.execute(
                text(
                    """UPDATE jobs SET spec = spec || '{"from_the_future": 1}'
                    || '{"machine": {"instance_types": ["t3.small"], "colour": "red"}}'"""
                )
            )
            assert jobs.get(tx, job_id).spec.machine.instance_types == ("t3.small",)

    def test_a_key_is_known_again_after_a_release_added_a_field(self, database: Database) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, key="k")
            tx.execute(text("UPDATE jobs SET spec = spec - 'backoff_s'"))
            assert jobs.submit_one(tx, spec(key="k"), actor="t").job_id == job_id

    def test_an_unexpected_error_does_not_show_an_environment(self, database: Database) -> None:
        secret = uuid4().hex

        def on_a_read_only_server() -> None:
            with database.begin() as tx:
                tx.execute(text("SET TRANSACTION READ ONLY"))
                submitted(tx, env={"PASSWORD": secret})

        with pytest.raises(Unavailable, match="read-only") as failure:
            on_a_read_only_server()
        assert secret not in "".join(traceback.format_exception(failure.value))


class TestCancel:
    @pytest.mark.parametrize("phase", [submitted, queued, warming, running])
    def test_in_every_phase_ends_the_job_and_every_way_on(
        self, database: Database, phase: Any
    ) -> None:
        with database.begin() as tx:
            made = phase(tx)
            ref = made if isinstance(made, AttemptRef) else AttemptRef(made, 0)
            left = jobs.cancel(tx, ref.job_id, actor="op")
            job = jobs.get(tx, ref.job_id)
            assert (job.state, job.outcome) == (JobState.FINISHED, Outcome.CANCELLED)
            assert left == (ref if phase in (warming, running) else None)
            assert claim_due(tx, 10, actor="t") == []
            assert not launches.begin(tx, ref, LAUNCH, actor="late")
            assert jobs.cancel(tx, ref.job_id, actor="op") is None
        with database.begin() as tx, pytest.raises(Conflict):
            attempts.claim(tx, ref, claim_id="x", instance_id=None, actor="m")

    def test_between_the_launch_and_its_commit_the_instance_is_still_written_down(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            ref = queued(tx)
            launches.begin(tx, ref, LAUNCH, actor="a")
            jobs.cancel(tx, ref.job_id, actor="op")
            assert not attempts.launched(tx, ref, "i-9", actor="a")
            attempt = attempts.get(tx, ref)
        assert attempt is not None
        assert (attempt.state, attempt.instance_id) == (AttemptState.EXITED, "i-9")

    def test_what_finished_otherwise_can_not_be_cancelled(self, database: Database) -> None:
        with database.begin() as tx:
            ref = running(tx)
            ended(tx, ref, 0)
        with database.begin() as tx, pytest.raises(Conflict, match="finished already"):
            jobs.cancel(tx, ref.job_id, actor="op")


class TestRetry:
    def test_gives_fresh_budgets(self, database: Database) -> None:
        with database.begin() as tx:
            ref = running(tx, max_attempts=1, infra_retries=0)
            ended(tx, ref, 1)
            jobs.retry(tx, ref.job_id, actor="op")
            (again,) = claim_due(tx, 10, actor="t")
        assert again == AttemptRef(ref.job_id, 2)

    def test_only_what_has_finished(self, database: Database) -> None:
        with database.begin() as tx:
            ref = running(tx)
        with database.begin() as tx, pytest.raises(Conflict, match="only a finished job"):
            jobs.retry(tx, ref.job_id, actor="op")


class TestListing:
    def test_by_state_and_label_in_order_and_pages(self, database: Database) -> None:
        with database.begin() as tx:
            made = [submitted(tx, labels={"team": "a"}, delay_s=600) for _ in range(5)]
            submitted(tx, labels={"team": "b"}, delay_s=600)
            queued(tx, labels={"team": "a"})
        with database.begin() as tx:
            page = listing.page(tx, states=[JobState.SCHEDULED], labels={"team": "a"}, limit=3)
            rest = listing.page(
                tx,
                states=[JobState.SCHEDULED],
                labels={"team": "a"},
                limit=3,
                after=page.next,
            )
        assert [job.id for job in page.jobs + rest.jobs] == made
        assert (page.total, rest.next) == (5, None)

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_who_follows_a_listing_loses_no_job_however_many_write(
        self, database: Database, database_url: str, size: int
    ) -> None:
        writers, each = 8, 30
        stop = threading.Event()

        def write(writer: int) -> set[UUID]:
            own = Database(database_url)
            made = set()
            for number in range(each):
                with own.begin() as tx:
                    made.add(submitted(tx, labels={"w": str(writer)}))
                    # Commits overtake each other, as those of busy writers do.
                    if number % 3 == 0:
                        tx.execute(text("SELECT pg_sleep(0.002)"))
            own.dispose()
            return made

        def follow() -> set[UUID]:
            seen: set[UUID] = set()
            after: UUID | None = None
            last = False
            while True:
                with database.begin() as tx:
                    page = listing.page(tx, limit=size, after=after)
                seen |= {job.id for job in page.jobs}
                if page.next is not None:
                    after = page.next
                    continue
                after = page.jobs[-1].id if page.jobs else after
                if last:
                    return seen
                last = stop.is_set()

        with ThreadPoolExecutor(writers + 1) as pool:
            following = pool.submit(follow)
            written = set().union(*pool.map(write, range(writers)))
            stop.set()
            assert following.result(timeout=60) >= written

    def test_a_page_goes_no_further_than_what_can_not_change_any_more(
        self, database: Database, database_url: str
    ) -> None:
        with database.begin() as tx:
            settled = submitted(tx)
        late = Database(database_url)
        with late.begin() as slow:
            slow.execute(text("SELECT pg_current_xact_id()"))
            with database.begin() as tx:
                early = submitted(tx)
            with database.begin() as tx:
                page = listing.page(tx)
            assert [job.id for job in page.jobs] == [settled, early]
            assert page.next == settled
            slowest = submitted(slow)
        with database.begin() as tx:
            rest = listing.page(tx, after=page.next)
        assert [job.id for job in rest.jobs] == [slowest, early]
        assert rest.next is None
        late.dispose()

    def test_the_newest_first_come_in_the_opposite_order(self, database: Database) -> None:
        made = []
        for _ in range(5):
            with database.begin() as tx:
                made.append(submitted(tx))
        with database.begin() as tx:
            tx.execute(
                text("UPDATE jobs SET submit_xid = NULL WHERE id = ANY(:ids)"), {"ids": made[:2]}
            )
        for newest, wanted in ((False, made), (True, made[::-1])):
            found: list[UUID] = []
            after = None
            while len(found) < 5:
                with database.begin() as tx:
                    page = listing.page(tx, limit=2, after=after, newest_first=newest)
                found += [job.id for job in page.jobs]
                after = page.next
            assert found == wanted

    @pytest.mark.parametrize("newest", [False, True])
    def test_jobs_of_several_statuses_come_in_one_order(
        self, database: Database, newest: bool
    ) -> None:
        made = []
        for number in range(9):
            with database.begin() as tx:
                made.append(queued(tx).job_id if number % 3 == 0 else submitted(tx, delay_s=600))
                if number % 3 == 1:
                    jobs.cancel(tx, made[-1], actor="op")
        with database.begin() as tx:
            tx.execute(
                text("UPDATE jobs SET submit_xid = NULL WHERE id = ANY(:ids)"), {"ids": made[:4]}
            )
        wanted = [one for number, one in enumerate(made) if number % 3 != 2]
        found: list[UUID] = []
        after = None
        while len(found) < len(wanted):
            with database.begin() as tx:
                page = listing.page(
                    tx,
                    states=[JobState.QUEUED],
                    outcomes=[Outcome.CANCELLED],
                    limit=2,
                    after=after,
                    newest_first=newest,
                )
            assert (page.total, page.total_estimated) == (6, False)
            found += [job.id for job in page.jobs]
            after = page.next
        assert found == (wanted[::-1] if newest else wanted)

    @pytest.mark.parametrize(
        "wanted",
        [
            {},
            {"states": [JobState.SCHEDULED]},
            {"states": [JobState.SCHEDULED, JobState.QUEUED]},
            {"labels": {"team": "a"}},
        ],
    )
    def test_more_jobs_than_are_counted_are_about_as_many_as_the_database_expects(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
    ) -> None:
        with database.begin() as tx:
            for _ in range(40):
                submitted(tx, labels={"team": "a"}, delay_s=600)
            tx.execute(text("ANALYZE jobs"))
        found = {}
        for counted in (39, 40):
            monkeypatch.setattr(listing, "COUNTED", counted)
            with database.begin() as tx:
                page = listing.page(tx, **wanted, limit=1)
            found[counted] = page.total_estimated
            assert 38 <= page.total <= 45
        assert found == {39: True, 40: False}

    @pytest.mark.parametrize("newest", [False, True])
    def test_jobs_within_times_come_in_the_order_of_these_and_no_other_counts(
        self, database: Database, newest: bool
    ) -> None:
        day = [f"2031-01-{number:02}T00:00:00Z" for number in range(1, 8)]
        with database.begin() as tx:
            # Submitted in another order; the last two have the same time.
            made = {number: submitted(tx, time=day[number]) for number in (4, 1, 5, 0, 3, 2)}
            made[6] = submitted(tx, time=day[5])
            jobs.cancel(tx, made[3], actor="op")
        since, until = parse_utc(day[1]), parse_utc(day[6])
        wanted = [made[number] for number in (1, 2, 3, 4, 5, 6)]
        found: list[UUID] = []
        after = None
        while len(found) < len(wanted):
            with database.begin() as tx:
                page = listing.page(
                    tx, since=since, until=until, limit=2, after=after, newest_first=newest
                )
            assert (page.total, page.total_estimated) == (6, False)
            found += [job.id for job in page.jobs]
            after = page.next
        assert found == (wanted[::-1] if newest else wanted)
        assert after is None
        with database.begin() as tx:
            assert (
                len(
                    listing.page(
                        tx, since=since, until=until, image="busybox", newest_first=newest
                    ).jobs
                )
                == 6
            )
            ended = listing.page(tx, since=since, outcomes=[Outcome.CANCELLED])
            assert [job.id for job in ended.jobs] == [made[3]]
            early = listing.page(tx, until=since, states=[JobState.SCHEDULED])
            assert [job.id for job in early.jobs] == [made[0]]
            with pytest.raises(NotFound, match="begin with the first page"):
                listing.page(tx, since=since, after=UUID(int=1))

    def test_an_id_is_found_by_its_beginning(self, database: Database) -> None:
        with database.begin() as tx:
            first, second = submitted(tx), submitted(tx)
            for size in (36, 35, 34):
                assert jobs.resolve(tx, str(first)[:size]) == first
            assert jobs.resolve(tx, str(second).upper()) == second
            with pytest.raises(NotFound, match="fits more than one job") as ambiguous:
                jobs.resolve(tx, str(first)[:8])
            assert str(first) in str(ambiguous.value)
            assert str(second) in str(ambiguous.value)
            for unknown in (str(UUID(int=1)), "-", f"{first}0", "0123456-7"):
                with pytest.raises(NotFound):
                    jobs.resolve(tx, unknown)

    def test_the_release_before_knows_a_jobs_time(self, database: Database) -> None:
        at = "2030-04-25T05:27:27.000Z"
        with database.begin() as tx:
            job_id = submitted(tx, time=at)
            spec = tx.scalar(text("SELECT spec FROM jobs WHERE id = :id"), {"id": job_id})
        assert spec["run_at"] == spec["time"]
        assert spec["time"]

    @pytest.mark.parametrize("part", [slice(0, 20), slice(-12, None)])
    def test_no_part_of_an_id_is_looked_for_in_every_job(
        self, database: Database, part: slice
    ) -> None:
        seen: list[tuple[str, Any]] = []

        def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            seen.append((statement, parameters))

        with database.begin() as tx:
            job_id = submitted(tx)
            tx.execute(text("SET LOCAL enable_seqscan = off"))
            event.listen(tx, "before_cursor_execute", note)
            assert jobs.resolve(tx, str(job_id)[part]) == job_id
            event.remove(tx, "before_cursor_execute", note)
            for statement, parameters in seen:
                rows = tx.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
                # No id can begin so: the planner sees that nothing is to be read.
                reads = ("Index" in row or "One-Time Filter: false" in row for row in rows)
                assert any(reads), rows
        assert len(seen) == (1 if part.start == 0 else 2)

    def test_an_id_is_found_by_its_unambiguous_tail(self, database: Database) -> None:
        with database.begin() as tx:
            job_id = submitted(tx)
            assert jobs.resolve(tx, str(job_id)[-6:]) == job_id
            for unknown in ("", "zz", "0" * 12, "%"):
                with pytest.raises(NotFound):
                    jobs.resolve(tx, unknown)


class TestRules:
    """The database refuses what the code must never do."""

    def test_a_second_live_attempt(self, database: Database) -> None:
        with database.begin() as tx:
            ref = warming(tx)
        with pytest.raises(Conflict, match="one_live"), database.begin() as tx:
            tx.execute(
                insert(attempt_table).values(
                    job_id=ref.job_id, number=2, state="launching", launch={}
                )
            )

    def test_one_instance_for_two_attempts(self, database: Database) -> None:
        with database.begin() as tx:
            first, second = warming(tx), warming(tx)
        with pytest.raises(Conflict, match="instance_id"), database.begin() as tx:
            tx.execute(
                update(attempt_table)
                .where(attempt_table.c.job_id == second.job_id)
                .values(
                    instance_id=select(attempt_table.c.instance_id)
                    .where(attempt_table.c.job_id == first.job_id)
                    .scalar_subquery()
                )
            )

    @pytest.mark.parametrize(
        "values",
        [
            {"state": "asleep"},
            {"state": "finished"},
            {"outcome": "succeeded"},
            {"attempt": 99},
            {"state": "running", "attempt": 0},
        ],
    )
    def test_a_job_that_contradicts_itself(
        self, database: Database, values: dict[str, Any]
    ) -> None:
        with database.begin() as tx:
            submitted(tx)
        with pytest.raises(Conflict), database.begin() as tx:
            tx.execute(update(job_table).values(**values))


def test_one_process_at_a_time_sweeps(database: Database) -> None:
    with database.only_one("sweep") as first, database.only_one("sweep") as second:
        assert (first, second) == (True, False)
    with database.only_one("sweep") as again:
        assert again


def test_events_wait_for_the_relay(database: Database) -> None:
    with database.begin() as tx:
        submitted(tx)
        (event,) = events.unrelayed(tx, 10)
        with database.begin() as other:
            assert events.unrelayed(other, 10) == []
        events.mark_relayed(tx, [event.id])
        assert events.unrelayed(tx, 10) == []


def test_an_unknown_job_is_not_found(database: Database) -> None:
    with database.begin() as tx, pytest.raises(NotFound):
        jobs.get(tx, uuid4())


class TestSessions:
    def test_a_session_whose_host_is_gone_ends_soon(self, database: Database) -> None:
        with database.begin() as tx:
            found = {
                name: tx.scalar(text(f"SHOW {name}"))
                for name in (
                    "tcp_keepalives_idle",
                    "tcp_keepalives_interval",
                    "tcp_keepalives_count",
                    "tcp_user_timeout",
                )
            }
        assert list(found.values()) == ["30", "10", "3", "60000"]

    def test_a_lock_lost_meanwhile_is_told(self, database: Database) -> None:
        with pytest.raises(Unavailable, match="'lost'"), database.only_one("lost"):
            self.end_lock_sessions(database)
        with database.only_one("lost") as mine:
            assert mine

    def test_what_failed_under_a_lost_lock_is_told_instead(self, database: Database) -> None:
        def fail() -> None:
            self.end_lock_sessions(database)
            raise LookupError

        with pytest.raises(LookupError), database.only_one("lost"):
            fail()

    def test_a_failure_gives_the_lock_back(self, database: Database) -> None:
        with pytest.raises(LookupError), database.only_one("failed"):
            raise LookupError
        with database.only_one("failed") as mine:
            assert mine

    def test_a_stopped_holder_loses_the_lock(self, database_url: str) -> None:
        stopped, other = Database(database_url), Database(database_url)
        stopped.longest_tick_s = 1

        def take() -> None:
            deadline = time.monotonic() + 30
            taken = False
            while not taken:
                assert time.monotonic() < deadline, "nobody else ever got the lock"
                with other.only_one("stopped") as taken:
                    time.sleep(0.02)

        try:
            with pytest.raises(Unavailable, match="'stopped'"), stopped.only_one("stopped"):
                take()
        finally:
            stopped.dispose()
            other.dispose()

    def test_a_session_that_held_a_lock_is_an_ordinary_one_again(self, database_url: str) -> None:
        alone = Database(database_url, pool_size=1)
        try:
            with alone.only_one("once") as mine:
                assert mine
            with alone.begin() as tx:
                assert tx.scalar(text("SHOW idle_session_timeout")) == "0"
                assert tx.scalar(text("SHOW statement_timeout")) == "30s"
                assert tx.scalar(text("SHOW jit")) == "off"
        finally:
            alone.dispose()

    def end_lock_sessions(self, database: Database) -> None:
        with database.begin() as tx:
            query = (
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            )
            assert tx.scalars(text(query)).all() == [True]


class TestUnreadable:
    """Rows of another release, or of a hand, beside good ones."""

    @pytest.fixture
    def reported(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> list[Unreadable]:
        reported: list[Unreadable] = []
        monkeypatch.setattr(database, "_on_unreadable", reported.append)
        return reported

    def spoil_launch(self, tx: Connection, ref: AttemptRef) -> None:
        tx.execute(
            update(attempt_table)
            .where(attempt_table.c.job_id == ref.job_id)
            .values(launch={"capacity_type": "barter"})
        )

    def spoil_spec(self, tx: Connection, job_id: UUID) -> None:
        bad = {"image": 7, "env": {"A": ["hush"]}, "timeout_s": "long", "priority": "high"}
        tx.execute(update(job_table).where(job_table.c.id == job_id).values(spec=bad))

    def test_an_attempt_is_left_out_and_told_once(
        self, database: Database, reported: list[Unreadable]
    ) -> None:
        with database.begin() as tx:
            bad, good = warming(tx), warming(tx)
            self.spoil_launch(tx, bad)
        with database.begin() as tx:
            assert [one.ref for one in attempts.still_open(tx)] == [good]
            assert list(attempts.many(tx, [bad, good])) == [good]
            ids = [f"i-{ref.job_id.hex[-17:]}" for ref in (bad, good)]
            assert [one.ref for one in reconciliation.of_instances(tx, ids)] == [good]
            page = reconciliation.page(tx, instance_ids=ids, refs=[bad, good], within_s=60)
            assert [one.ref for one in page.attempts] == [good]
            assert (rows.left_out(tx, bad), rows.left_out(tx, good)) == (True, False)
            assert not rows.left_out(tx, None)
        assert [(one.job, one.attempt) for one in reported] == [(str(bad.job_id), 1)]
        with database.begin() as tx:
            assert not rows.left_out(tx, bad)

    def test_it_is_told_though_the_turn_fails(
        self, database: Database, reported: list[Unreadable]
    ) -> None:
        with database.begin() as tx:
            self.spoil_launch(tx, warming(tx))
        with suppress(LookupError), database.begin() as tx:
            attempts.still_open(tx)
            raise LookupError
        assert len(reported) == 1

    def test_one_alone_is_refused_by_its_name_and_without_its_content(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            first, second = warming(tx, env={"A": "hush"}), warming(tx)
            self.spoil_launch(tx, first)
            self.spoil_spec(tx, second.job_id)
            for ref in (first, second):
                with pytest.raises(Unreadable, match=str(ref.job_id)) as refused:
                    jobs.get(tx, ref.job_id)
                assert "hush" not in str(refused.value)
            with pytest.raises(Unreadable, match="launch"):
                attempts.get(tx, first)

    def test_a_job_is_left_out_of_a_page_and_the_next_page_follows(
        self, database: Database, reported: list[Unreadable]
    ) -> None:
        with database.begin() as tx:
            one, two, three = submitted(tx), submitted(tx), submitted(tx)
            self.spoil_spec(tx, two)
        with database.begin() as tx:
            page = listing.page(tx, limit=2)
            rest = listing.page(tx, limit=2, after=page.next)
        assert [job.id for job in page.jobs] == [one]
        assert [job.id for job in rest.jobs] == [three]
        assert (page.total, page.next) == (3, two)
        assert [error.job for error in reported] == [str(two)]

    def test_a_launcher_gets_the_others(
        self, database: Database, reported: list[Unreadable]
    ) -> None:
        with database.begin() as tx:
            refs = [queued(tx) for _ in range(4)]
            for ref in refs[:2]:
                assert launches.begin(tx, ref, LAUNCH, actor="test")
            self.spoil_spec(tx, refs[0].job_id)
            self.spoil_spec(tx, refs[2].job_id)
        with database.begin() as tx:
            assert [one.ref for one, _ in attempts.with_specs(tx, refs)] == [refs[1]]
            assert list(jobs.lock_queued(tx, refs)) == [refs[3]]
        assert {error.job for error in reported} == {str(refs[0].job_id), str(refs[2].job_id)}

    def test_a_scheduler_claims_it_and_the_others(self, database: Database) -> None:
        with database.begin() as tx:
            ids = {submitted(tx) for _ in range(2)}
            self.spoil_spec(tx, min(ids))
            urgent = submitted(tx, priority=5)
            claimed = [ref.job_id for ref in claim_due(tx, 10, actor="test")]
            assert set(claimed) == {*ids, urgent}
            assert claimed[0] == urgent

    def test_a_limit_that_is_no_number_hides_no_other(self, database: Database) -> None:
        with database.begin() as tx:
            bad, good = running(tx), running(tx, timeout_s=7)
            self.spoil_spec(tx, bad.job_id)
            assert attempts.timeouts(tx, [bad, good]) == {good: 7}

    def test_a_submit_with_its_key_is_refused_alone(self, database: Database) -> None:
        with database.begin() as tx:
            known = submitted(tx, key="k")
            self.spoil_spec(tx, known)
            same, other = jobs.submit(tx, [spec(key="k"), spec()], actor="test")
            assert (same.job_id, same.created, list(same.differs)) == (known, False, ["job"])
            assert other.created

    def test_a_reason_of_a_newer_release_hides_nothing(
        self, database: Database, reported: list[Unreadable]
    ) -> None:
        with self.newer(database) as tx:
            ref = running(tx)
            ended(tx, ref, 1)
            for table in (attempt_table, job_table):
                tx.execute(update(table).values(reason="eaten_by_a_dog"))
            (attempt,) = attempts.still_open(tx)
            job = jobs.get(tx, ref.job_id)
            assert (attempt.state, attempt.reason) == (AttemptState.EXITED, None)
            assert (job.outcome, job.reason) == (Outcome.FAILED, None)
            assert attempts.close(tx, ref, actor="test")
        assert reported == []

    @pytest.mark.parametrize(
        ("budget", "code", "after"),
        [
            ({"max_attempts": 3, "infra_retries": 0}, 1, JobState.SCHEDULED),
            ({"max_attempts": 2, "infra_retries": 5}, 1, JobState.FINISHED),
            ({"max_attempts": 5, "infra_retries": 1}, None, JobState.FINISHED),
            ({"max_attempts": 1, "infra_retries": 2}, None, JobState.SCHEDULED),
        ],
    )
    def test_an_end_of_unknown_fault_counts_for_both_budgets(
        self, database: Database, budget: dict[str, int], code: int | None, after: JobState
    ) -> None:
        """One such end, and then one of the program's (with a code) or of the infrastructure's."""
        with self.newer(database) as tx:
            first = running(tx, backoff_s=0, **{**budget, "max_attempts": 5, "infra_retries": 5})
            ended(tx, first, 1)
            tx.execute(update(attempt_table).values(reason="eaten_by_a_dog"))
            stored = func.jsonb_set
            for name, value in budget.items():
                path, new = f"{{{name}}}", cast(str(value), JSONB)
                tx.execute(update(job_table).values(spec=stored(job_table.c.spec, path, new)))
            (second,) = claim_due(tx, 10, actor="test")
            assert launches.begin(tx, second, LAUNCH, actor="test")
            reason = Reason.EXIT_NONZERO if code else Reason.PULL_FAILED
            record = ExitRecord(exit_code=code)
            assert attempts.end(tx, second, reason, actor="test", exit_record=record)
            assert jobs.get(tx, first.job_id).state is after

    @contextmanager
    def newer(self, database: Database) -> Iterator[Connection]:
        """A transaction on the tables of a newer release, which knows more reasons; undone."""
        with database.begin() as tx:
            for table in ("attempts", "jobs"):
                tx.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_reason"))
            yield tx
            tx.rollback()
