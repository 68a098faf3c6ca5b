"""Dispatch: by priority over all that is due, at its time, and past what an old snapshot keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, time
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import text

from atemporal.broker import Delivery, Link, Outgoing
from atemporal.errors import AtemporalError, Unavailable, Unknown
from atemporal.messages import LAUNCH, JobDue, decode
from atemporal.model import AttemptRef, parse_spec
from atemporal.states import JobState
from atemporal.store import due, jobs
from atemporal.store.database import Database, NotificationListener
from atemporal.store.jobs import NOTIFY_WITHIN_S
from services.scheduler.backlog import SHARE, Backlog
from services.scheduler.batch import Batch
from services.scheduler.due import DueLoop
from tests.claims import claim_due
from tests.servers.rabbitmq import RabbitMQ


@pytest.fixture(autouse=True)
def empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events"))


@pytest.fixture
def reader(broker_url: str) -> Iterator[Link]:
    """A link that receives; the queue is empty afterwards."""
    link = Link(broker_url, name="reader")
    link.connect()
    yield link
    received(link, at_least=0)
    link.close()


@pytest.fixture
def loop(broker_url: str, database: Database) -> Iterator[DueLoop]:
    loop = DueLoop(database, Link(broker_url, name="due"), poll_interval_s=0.05)
    yield loop
    loop.reset()


def submitted(
    database: Database, count: int = 1, *, age_s: float = 0, **fields: Any
) -> list[UUID]:
    """Submit jobs that have been due for so long, one microsecond after the other."""
    specs = [parse_spec({"image": "busybox", **fields})] * count
    with database.begin() as tx:
        ids = [one.job_id for one in jobs.submit(tx, specs, actor="test")]
        if age_s:
            tx.execute(
                text(
                    "UPDATE jobs SET due_at = now() - make_interval(secs => :age_s)"
                    " + (ordinality - 1) * interval '1 us'"
                    " FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS them(id, ordinality)"
                    " WHERE jobs.id = them.id"
                ),
                {"age_s": age_s, "ids": [str(one) for one in ids]},
            )
    return ids


def received(link: Link, *, at_least: int) -> list[Delivery]:
    got: list[Delivery] = []
    while batch := link.receive(LAUNCH, limit=1000, timeout_s=30 if len(got) < at_least else 0.2):
        link.ack(batch)
        got += batch
    return got


def ids(messages: Sequence[Delivery]) -> list[UUID]:
    return [decode(LAUNCH, one.body).job_id for one in messages]


@pytest.mark.parametrize("attempts_before", [0, 1, 41])
def test_the_message_made_in_sql_is_the_encoded_one(
    database: Database, attempts_before: int
) -> None:
    (job_id,) = submitted(database, age_s=5)
    with database.begin() as tx:
        tx.execute(text(f"UPDATE jobs SET attempt = {attempts_before}, attempt_limit = 99"))
        (claimed,) = due.claim(tx, 0, actor="test", limit=10).jobs
    message = JobDue.of(AttemptRef(job_id, attempts_before + 1))
    made = Outgoing.of(message)
    assert (claimed.body, claimed.message_id) == (made.body, made.message_id)
    assert (made.exchange, made.routing_key) == (JobDue.exchange, JobDue.type_name())


def test_priority_counts_over_all_that_is_due_and_time_among_equals(
    database: Database, loop: DueLoop, reader: Link
) -> None:
    loop._limit = 10
    low = submitted(database, 25, priority=-3, age_s=3000)
    none = submitted(database, 25, age_s=2000)
    high = submitted(database, 25, priority=7, age_s=1000)
    future = submitted(database, 3, priority=100, delay_s=600)
    while any(one.wait_s <= 0 for one in looked(database)):
        loop.tick()
    assert ids(received(reader, at_least=75)) == [*high, *none, *low]
    with database.begin() as tx:
        assert {jobs.get(tx, one).state for one in future} == {JobState.SCHEDULED}


def test_what_becomes_due_in_a_backlog_goes_before_what_is_lower(
    database: Database, loop: DueLoop, reader: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine, the next look is allowed at once.
    monkeypatch.setattr("services.scheduler.backlog.SHARE", float("inf"))
    loop._limit = 10
    low = submitted(database, 60, age_s=1000)
    late: list[UUID] = []
    claim = Backlog.claim

    def then_submit(backlog: Backlog, *given: Any, **more: Any) -> Any:
        claimed = claim(backlog, *given, **more)
        if not late:
            late.extend(submitted(database, priority=50))
            # As Postgres says it too, which on a busy machine takes a batch or two.
            backlog.notified()
        return claimed

    monkeypatch.setattr(Backlog, "claim", then_submit)
    while looked(database):
        loop.tick()
    order = ids(received(reader, at_least=61))
    # One batch was claimed before it came; the look from the beginning may be a batch late.
    assert set(order) == {*low, *late}
    assert order.index(late[0]) <= 30


def looked(database: Database) -> list[due.Level]:
    with database.begin() as tx:
        return due.survey(tx)


@pytest.mark.parametrize("priority", ["high", None, 3.7, 1e300, [1], {"a": 1}, True])
def test_a_priority_that_is_none_spoils_neither_the_index_nor_the_claim(
    database: Database, priority: Any
) -> None:
    (job_id,) = submitted(database)
    with database.begin() as tx:
        tx.execute(
            text("UPDATE jobs SET spec = jsonb_set(spec, '{priority}', CAST(:it AS jsonb))"),
            {"it": json.dumps(priority)},
        )
    with database.begin() as tx:
        assert claim_due(tx, 10, actor="test") == [AttemptRef(job_id, 1)]


def test_a_message_leaves_at_its_time_and_never_before(
    database: Database, loop: DueLoop, reader: Link
) -> None:
    for number in range(8):
        submitted(database, delay_s=1, lead=0, labels={"n": str(number)})
    with database.begin() as tx:
        rows = tx.execute(text("SELECT id, extract(epoch FROM due_at) AS at FROM jobs"))
        due_at = {row.id: float(row.at) for row in rows}
    sent: dict[UUID, float] = {}
    send = loop._link.send

    def noted(messages: Sequence[Outgoing]) -> Any:
        # Postgres runs on this machine: its clock is this one.
        sent.update({decode(LAUNCH, one.body).job_id: time() for one in messages})
        return send(messages)

    loop._link.send = noted  # type: ignore[method-assign]
    until = monotonic() + 60
    while len(sent) < 8 and monotonic() < until:
        loop.tick()
    assert sent.keys() == due_at.keys()
    assert [sent[job] - due_at[job] for job in due_at if sent[job] < due_at[job]] == []
    assert len(received(reader, at_least=8)) == 8


_COPY = """
    INSERT INTO jobs (id, spec, state, attempt_limit, run_at, due_at)
    SELECT gen_random_uuid(), spec, state, attempt_limit, run_at, run_at FROM jobs WHERE id = %s
    RETURNING CAST(id AS text)
"""


class TestOldSnapshot:
    """Two schedulers, a transaction that keeps every dead row, and others that commit late."""

    @pytest.fixture
    def old(self, database: Database, database_url: str) -> Iterator[Any]:
        connection = psycopg2.connect(database_url)
        connection.set_session(isolation_level="REPEATABLE READ")
        connection.cursor().execute("SELECT count(*) FROM jobs")
        yield connection
        connection.close()

    @pytest.fixture
    def other(self, broker_url: str, database: Database) -> Iterator[DueLoop]:
        loop = DueLoop(database, Link(broker_url, name="other"), poll_interval_s=0.05)
        yield loop
        loop.reset()

    @pytest.mark.usefixtures("old")
    def test_dead_rows_are_not_passed_again(self, database: Database) -> None:
        backlog = Backlog(look_every_s=3600, clock=monotonic)
        submitted(database, 600, age_s=100)
        visited = []
        for _ in range(5):
            with database.begin() as tx:
                levels = backlog.survey(tx)
                before = self.fetched(tx)
                backlog.claim(tx, levels, actor="t", limit=100, ahead_s=0)
                visited.append(self.fetched(tx) - before)
        assert max(visited) <= 2 * min(visited)

    def fetched(self, tx: Any) -> int:
        query = "SELECT pg_stat_get_xact_tuples_fetched(c.oid) FROM pg_class AS c"
        return int(
            tx.scalar(text(f"{query} WHERE relname = 'ix_jobs_due_by_priority'")) or 0
        ) + int(
            tx.scalar(
                text(
                    "SELECT pg_stat_get_xact_tuples_returned(oid) FROM pg_class"
                    " WHERE relname = 'ix_jobs_due_by_priority'"
                )
            )
            or 0
        )

    @pytest.mark.usefixtures("old")
    @pytest.mark.parametrize("how", ["submitted", "rescheduled", "given back", "new priority"])
    def test_what_comes_behind_the_position_is_found_by_one_of_two(
        self,
        database: Database,
        database_url: str,
        loop: DueLoop,
        other: DueLoop,
        reader: Link,
        how: str,
    ) -> None:
        loop._limit = other._limit = 20
        first = submitted(database, 100, age_s=50)
        behind = submitted(database, age_s=90, priority=9 if how == "new priority" else 0)
        writer = psycopg2.connect(database_url)
        cursor = writer.cursor()
        held = "SELECT 1 FROM jobs WHERE id = %s FOR UPDATE"
        if how == "given back":
            # As a scheduler does that claims it, and fails before its commit.
            cursor.execute(held, (str(behind[0]),))
        else:
            self.hide(database, behind[0])
            if how == "submitted":
                cursor.execute(_COPY, (str(behind[0]),))
                behind = [UUID(cursor.fetchone()[0])]
                with database.begin() as tx:
                    tx.execute(text("DELETE FROM jobs WHERE due_at > run_at + interval '1 hour'"))
            else:
                cursor.execute("UPDATE jobs SET due_at = run_at WHERE id = %s", (str(behind[0]),))
        until = monotonic() + 30
        while len(looked(database)) and monotonic() < until and not self.taken(database, first):
            loop.tick()
            other.tick()
        if how == "given back":
            writer.rollback()
        else:
            writer.commit()
        writer.close()
        until = monotonic() + 30
        while not self.taken(database, [*first, *behind]) and monotonic() < until:
            loop.tick()
            other.tick()
        assert sorted(ids(received(reader, at_least=101))) == sorted([*first, *behind])

    def hide(self, database: Database, job: UUID) -> None:
        """Move a job into the future; when it would run stays behind all others."""
        with database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE jobs SET run_at = due_at, due_at = now() + interval '1 day'"
                    " WHERE id = :id"
                ),
                {"id": job},
            )

    def taken(self, database: Database, wanted: Sequence[UUID]) -> bool:
        with database.begin() as tx:
            left = tx.scalar(
                text("SELECT count(*) FROM jobs WHERE state = 'scheduled' AND id = ANY(:ids)"),
                {"ids": list(wanted)},
            )
        return bool(left == 0)


class TestFailures:
    """Nothing is committed that the broker has not confirmed, with two batches on their way."""

    @pytest.mark.parametrize("fails_at", [1, 2, 3])
    def test_a_batch_that_is_not_confirmed_takes_the_next_one_back_with_it(
        self,
        database: Database,
        loop: DueLoop,
        reader: Link,
        monkeypatch: pytest.MonkeyPatch,
        fails_at: int,
    ) -> None:
        loop._limit = 10
        wanted = submitted(database, 40, age_s=100)
        settled: list[Any] = []
        settle = loop._link.settle

        def unconfirmed(sent: Any, **more: Any) -> Any:
            settled.append(sent)
            if len(settled) == fails_at:
                raise Unknown("not confirmed")
            return settle(sent, **more)

        monkeypatch.setattr(loop._link, "settle", unconfirmed)
        with pytest.raises(Unknown):
            loop.tick()
        with database.begin() as tx:
            queued = tx.scalar(text("SELECT count(*) FROM jobs WHERE state = 'queued'"))
            recorded = tx.scalar(text("SELECT count(*) FROM events WHERE type = 'job.queued'"))
        assert queued == recorded == 10 * (fails_at - 1)
        while looked(database):
            loop.tick()
        messages = received(reader, at_least=40)
        assert set(ids(messages)) == set(wanted)
        # What went out twice names the same attempt.
        assert {decode(LAUNCH, one.body).attempt for one in messages} == {1}

    def test_a_broker_in_alarm_is_a_failure_at_once_and_holds_no_row(
        self, database: Database, loop: DueLoop, reader: Link, rabbitmq_server: RabbitMQ
    ) -> None:
        loop.tick()
        (job_id,) = submitted(database)
        rabbitmq_server.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            with pytest.raises(AtemporalError, match="short of memory or disk"):
                loop.tick()
            with database.begin() as tx:
                tx.execute(text("SET LOCAL lock_timeout = '5s'"))
                assert jobs.get(tx, job_id, lock=True).state is JobState.SCHEDULED
        finally:
            rabbitmq_server.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        until = monotonic() + 60
        while looked(database) and monotonic() < until:
            try:
                loop.tick()
            except AtemporalError:
                loop.reset()
        assert set(ids(received(reader, at_least=1))) == {job_id}

    def test_a_broker_that_restarts_in_between_loses_no_job(
        self, database: Database, loop: DueLoop, reader: Link, rabbitmq_server: RabbitMQ
    ) -> None:
        loop._limit = 10
        wanted = submitted(database, 10, age_s=100)
        loop.tick()
        wanted += submitted(database, 10, age_s=50)
        reader.close()
        rabbitmq_server.restart()
        until = monotonic() + 60
        while looked(database) and monotonic() < until:
            try:
                loop.tick()
            except AtemporalError:
                loop.reset()
        assert set(ids(received(reader, at_least=20))) == set(wanted)

    @pytest.mark.usefixtures("reader")
    @pytest.mark.parametrize("failing", [{0}, {1}, {0, 1}])
    def test_a_rollback_that_fails_keeps_no_other_batch_open(
        self,
        database: Database,
        loop: DueLoop,
        monkeypatch: pytest.MonkeyPatch,
        failing: set[int],
    ) -> None:
        loop._limit = 10
        submitted(database, 40, age_s=100)
        sent: list[Any] = []
        send, abandon = loop._link.send, Batch.abandon
        abandoned: list[Batch] = []

        def second_fails(messages: Sequence[Outgoing]) -> Any:
            sent.append(messages)
            if len(sent) == 2:
                raise Unknown("the second batch is not sent")
            return send(messages)

        def then_fail(batch: Batch, error: BaseException) -> None:
            abandoned.append(batch)
            abandon(batch, error)
            if len(abandoned) - 1 in failing:
                raise Unavailable("the connection is gone")

        monkeypatch.setattr(loop._link, "send", second_fails)
        monkeypatch.setattr(Batch, "abandon", then_fail)
        with pytest.raises(Unavailable) as failure:
            loop.tick()
        with database.begin() as tx:
            free = tx.execute(
                text("SELECT id FROM jobs WHERE state = 'scheduled' FOR UPDATE SKIP LOCKED")
            ).all()
        assert len(free) == 40
        # Why they were rolled back is not lost.
        assert "the second batch is not sent" in str(chain(failure.value))


def chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__context__
    return found


class Ear(NotificationListener):
    """A listener that does not sleep: it notes for how long it should, and says what it is told to."""

    def __init__(self, *says: bool) -> None:
        self.says = list(says)
        self.slept: list[float] = []

    def wait(self, timeout_s: float) -> bool:
        self.slept.append(timeout_s)
        return self.says.pop(0) if self.says else False

    def close(self) -> None:
        self.says.clear()


class TestSleep:
    """For how long the loop sleeps, by a clock that only the test sets."""

    @pytest.fixture
    def made(self, broker_url: str, database: Database) -> Iterator[Any]:
        loops: list[DueLoop] = []

        def make(ear: Ear, *, poll_interval_s: float) -> DueLoop:
            self.now = 1000.0
            link = Link(broker_url, name="due")
            clock = lambda: self.now  # noqa: E731
            loop = DueLoop(database, link, poll_interval_s=poll_interval_s, clock=clock)
            loop._listener = ear
            loops.append(loop)
            return loop

        yield make
        for loop in loops:
            loop.reset()

    @pytest.mark.parametrize("look_s", [0.0, 0.001, 0.02])
    def test_a_notification_soon_after_a_look_is_heeded_once_a_look_is_allowed(
        self,
        database: Database,
        made: Any,
        reader: Link,
        monkeypatch: pytest.MonkeyPatch,
        look_s: float,
    ) -> None:
        ear = Ear(True)
        loop = made(ear, poll_interval_s=1.0)
        survey = due.survey

        def slow(tx: Any) -> list[due.Level]:
            self.now += look_s
            return survey(tx)

        monkeypatch.setattr(due, "survey", slow)
        loop.tick()
        # Of a new priority: it is seen from the beginning only.
        wanted = submitted(database, priority=5, age_s=5)
        if look_s:
            loop.tick()
            assert ear.slept == [1.0, pytest.approx(look_s / SHARE)]
            assert looked(database)
            self.now += ear.slept[-1]
        loop.tick()
        assert ids(received(reader, at_least=1)) == wanted

    def test_a_look_that_is_allowed_late_is_not_waited_for_without_polling(
        self, made: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ear = Ear(True)
        loop = made(ear, poll_interval_s=0.5)
        survey = due.survey

        def slow(tx: Any) -> list[due.Level]:
            self.now += 10
            return survey(tx)

        monkeypatch.setattr(due, "survey", slow)
        loop.tick()
        loop.tick()
        assert ear.slept == [0.5, 0.5]

    @pytest.mark.parametrize("poll_interval_s", [0.25, 1.0, 5.0, 60.0])
    def test_it_never_sleeps_past_what_notifies_nobody(
        self, database: Database, made: Any, reader: Link, poll_interval_s: float
    ) -> None:
        ear = Ear()
        loop = made(ear, poll_interval_s=poll_interval_s)
        loop.tick()
        assert ear.slept == [min(poll_interval_s, NOTIFY_WITHIN_S)]
        # As one that was submitted meanwhile for a little later than a submit notifies of.
        wanted = submitted(database, priority=5, age_s=0.001)
        self.now += ear.slept[-1]
        loop.tick()
        assert ids(received(reader, at_least=1)) == wanted


class TestChangedMeanwhile:
    """A row that somebody changes between a claim's snapshot and its lock."""

    @pytest.mark.parametrize("changed", [[0], [1, 3], [4], [0, 1, 2, 3, 4]])
    @pytest.mark.parametrize("what", ["updated_at = now()", "attempt_limit = 7"])
    def test_it_is_claimed_next_without_a_look_from_the_beginning(
        self,
        database: Database,
        database_url: str,
        monkeypatch: pytest.MonkeyPatch,
        changed: list[int],
        what: str,
    ) -> None:
        backlog = Backlog(look_every_s=3600, clock=lambda: 0.0)
        wanted = submitted(database, 5, age_s=100)
        with database.begin() as tx:
            backlog.survey(tx)
        writer = psycopg2.connect(database_url)
        writer.autocommit = True
        cursor = writer.cursor()
        cursor.execute("SELECT pg_advisory_lock(4711)")
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
            # The claim stops when it has its snapshot and no row yet.
            stop = "(SELECT count(*) FROM (SELECT pg_advisory_xact_lock(4711)) AS it) = 1"
            stopping = due._CLAIM.text.replace("WHERE state", f"WHERE {stop} AND state", 1)
            patch.setattr(due, "_CLAIM", text(stopping))
            first = pool.submit(self.claimed, database, backlog)
            try:
                until = monotonic() + 60
                waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                cursor.execute(waiting)
                while cursor.fetchone() is None:
                    assert monotonic() < until
                    assert not first.done()
                    cursor.execute(waiting)
                them = [str(wanted[n]) for n in changed]
                cursor.execute(f"UPDATE jobs SET {what} WHERE id = ANY(%s::uuid[])", (them,))
            finally:
                cursor.execute("SELECT pg_advisory_unlock(4711)")
                writer.close()
            taken = first.result(timeout=60)
        assert taken == [job for n, job in enumerate(wanted) if n not in changed]
        assert self.claimed(database, backlog) == [wanted[n] for n in changed]

    def claimed(self, database: Database, backlog: Backlog) -> list[UUID]:
        with database.begin() as tx:
            levels = backlog.survey(tx)
            claimed = backlog.claim(tx, levels, actor="t", limit=100, ahead_s=0)
        return [UUID(one.position.job_id) for one in claimed.jobs]
