"""What finished long ago is deleted with all that is of it; what anybody still waits for is not."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
import structlog.testing
from prometheus_client import REGISTRY
from sqlalchemy import Connection, text

from atemporal.errors import NotFound
from atemporal.model import AttemptRef, ExitRecord, parse_spec
from atemporal.states import JobState, Reason
from atemporal.store import attempts, dead_letters, events, jobs, launches, listing
from atemporal.store.database import Database
from atemporal.store.retention import (
    delete_empty_groups,
    delete_finished,
    delete_old_letters,
)
from services.reaper import retention
from services.reaper.retention import RetentionLoop
from tests.claims import claim_due
from tests.invariants import assert_invariants
from tests.launches import LAUNCH
from tests.letters import refused

DAY_S = 86_400
KEEP_S = 90 * DAY_S


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events, launch_groups, dead_letters"))


def finished(
    tx: Connection, days_ago: float, *, key: str | None = None, closed: bool = True
) -> UUID:
    """A job with one attempt that ended so long ago, of which everybody has heard."""
    spec = parse_spec({"image": "busybox", "key": key})
    job_id = jobs.submit_one(tx, spec, actor="test").job_id
    claim_due(tx, 10, actor="test")
    ref = AttemptRef(job_id, 1)
    assert launches.begin(tx, ref, LAUNCH, actor="test")
    attempts.launched(tx, ref, f"i-{job_id}", actor="test")
    attempts.claim(tx, ref, claim_id="c", instance_id=f"i-{job_id}", actor="test")
    record = ExitRecord(exit_code=0)
    assert attempts.end(tx, ref, Reason.COMPLETED, actor="test", exit_record=record)
    if closed:
        assert attempts.close(tx, ref, actor="test")
    _heard(tx)
    ago = text("UPDATE jobs SET finished_at = now() - make_interval(secs => :s) WHERE id = :id")
    tx.execute(ago, {"s": days_ago * DAY_S, "id": job_id})
    return job_id


def _heard(tx: Connection) -> None:
    tx.execute(text("UPDATE events SET relayed = true"))


def newest(tx: Connection) -> UUID:
    """The last job of all, which is never deleted."""
    job_id = jobs.submit_one(
        tx, parse_spec({"image": "busybox", "delay_s": 9999}), actor="test"
    ).job_id
    _heard(tx)
    return job_id


def left(tx: Connection) -> set[UUID]:
    return set(tx.scalars(text("SELECT id FROM jobs")))


def test_a_job_goes_with_all_that_is_of_it(database: Database) -> None:
    with database.begin() as tx:
        old, young, last = finished(tx, 91), finished(tx, 89), newest(tx)
        assert delete_finished(tx, keep_s=KEEP_S, limit=10) == 1
        assert left(tx) == {young, last}
        assert attempts.of_job(tx, old) == []
        assert events.of_job(tx, old) == []
        assert len(attempts.of_job(tx, young)) == 1
        assert len(events.of_job(tx, young)) == 10
        assert delete_finished(tx, keep_s=KEEP_S, limit=10) == 0
    assert_invariants(database)


def test_its_key_is_free_again(database: Database) -> None:
    with database.begin() as tx:
        first = finished(tx, 91, key="once")
        kept = finished(tx, 30, key="kept")
        newest(tx)
        delete_finished(tx, keep_s=KEEP_S, limit=10)
        again = jobs.submit_one(tx, parse_spec({"image": "busybox", "key": "once"}), actor="test")
        same = jobs.submit_one(tx, parse_spec({"image": "busybox", "key": "kept"}), actor="test")
    assert again.created
    assert again.job_id != first
    assert (same.created, same.job_id) == (False, kept)


@pytest.mark.parametrize(
    "still",
    [
        "UPDATE attempts SET state = 'exited', closed_at = NULL WHERE job_id = :id",
        "UPDATE events SET relayed = false WHERE job_id = :id AND type = 'attempt.closed'",
        "UPDATE events SET relayed = false WHERE job_id = :id AND type = 'job.scheduled'",
        "UPDATE jobs SET finished_at = now() - interval '89 days' WHERE id = :id",
        "UPDATE jobs SET state = 'scheduled', outcome = NULL, finished_at = NULL WHERE id = :id",
    ],
    ids=["instance", "event", "first event", "age", "another attempt"],
)
def test_what_somebody_waits_for_stays_and_holds_up_no_other(
    database: Database, still: str
) -> None:
    with database.begin() as tx:
        spared, other, last = finished(tx, 400), finished(tx, 100), newest(tx)
        tx.execute(text(still), {"id": spared})
        before = len(events.of_job(tx, spared))
        assert delete_finished(tx, keep_s=KEEP_S, limit=1) == 1
        assert left(tx) == {spared, last}
        assert other not in left(tx)
        assert len(events.of_job(tx, spared)) == before


def test_what_another_has_locked_is_left_for_later(database: Database) -> None:
    with database.begin() as tx:
        held, free, last = finished(tx, 400), finished(tx, 300), newest(tx)
    with database.begin() as other, database.begin() as tx:
        jobs.get(other, held, lock=True)
        assert delete_finished(tx, keep_s=KEEP_S, limit=10) == 1
        assert left(tx) == {held, last}
        assert free not in left(tx)


def test_who_follows_the_listing_keeps_its_place(database: Database) -> None:
    with database.begin() as tx:
        for _ in range(3):
            finished(tx, 91)
        page = listing.page(tx, limit=10)
        place = page.jobs[-1].id
        assert delete_finished(tx, keep_s=KEEP_S, limit=10) == 2
        assert listing.page(tx, after=place).jobs == []
        new = newest(tx)
        assert [job.id for job in listing.page(tx, after=place).jobs] == [new]
        # Now another one is the newest.
        assert delete_finished(tx, keep_s=KEEP_S, limit=10) == 1


def test_the_loop_deletes_in_batches_and_counts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    with database.begin() as tx:
        for _ in range(3):
            finished(tx, 2)
        newest(tx)
    before = REGISTRY.get_sample_value("atemporal_jobs_deleted_total") or 0
    loop = RetentionLoop(database, days=1)
    assert loop.tick() == retention.PAUSE_S
    assert loop.tick() == retention.REST_S
    assert REGISTRY.get_sample_value("atemporal_jobs_deleted_total") == before + 3
    with database.begin() as tx:
        assert len(left(tx)) == 1


def test_without_a_retention_and_beside_another_reaper_nothing_is_deleted(
    database: Database,
) -> None:
    with database.begin() as tx:
        old, last = finished(tx, 20_000), newest(tx)
    RetentionLoop(database, days=0).tick()
    with database.only_one("retention"):
        RetentionLoop(database, days=1).tick()
    with database.begin() as tx:
        assert left(tx) == {old, last}
        assert jobs.get(tx, old).state is JobState.FINISHED
    RetentionLoop(database, days=1).tick()
    with database.begin() as tx:
        assert left(tx) == {last}


def chunks_left(tx: Connection) -> list[int]:
    return list(tx.scalars(text("SELECT start FROM log_chunks ORDER BY start")))


def test_log_chunks_go_by_their_own_age_and_with_their_job(database: Database) -> None:
    with database.begin() as tx:
        tx.execute(text("TRUNCATE log_chunks"))
        kept, old = finished(tx, 2), finished(tx, 200)
        newest(tx)
        for job_id, start, days in ((kept, 1, 8), (kept, 2, 6), (old, 3, 0)):
            tx.execute(
                text(
                    "INSERT INTO log_chunks (job_id, attempt, start, data, at)"
                    " VALUES (:job, 1, :start, 'x', now() - make_interval(days => :days))"
                ),
                {"job": job_id, "start": start, "days": days},
            )
    with database.only_one("log chunks"):
        RetentionLoop(database, days=0, log_days=7).tick()
    with database.begin() as tx:
        assert chunks_left(tx) == [1, 2, 3]
    RetentionLoop(database, days=0, log_days=7).tick()
    with database.begin() as tx:
        assert chunks_left(tx) == [2, 3]
    RetentionLoop(database, days=90, log_days=7).tick()
    with database.begin() as tx:
        assert chunks_left(tx) == [2]


def group(tx: Connection, days_ago: float | None, *, of: UUID | None = None) -> UUID:
    """A launch group that was settled so long ago; None for one that is not."""
    made = text(
        "INSERT INTO launch_groups (id, launch, size, settled_at)"
        " VALUES (gen_random_uuid(), '{}', 1, now() - make_interval(secs => :s)) RETURNING id"
    )
    id_ = UUID(str(tx.scalar(made, {"s": days_ago and days_ago * DAY_S})))
    joined = text("UPDATE attempts SET group_id = :group WHERE job_id = :job")
    tx.execute(joined, {"group": id_, "job": of})
    return id_


def groups_left(tx: Connection) -> set[UUID]:
    return set(tx.scalars(text("SELECT id FROM launch_groups")))


def test_a_launch_group_goes_after_the_last_of_its_attempts(database: Database) -> None:
    with database.begin() as tx:
        group(tx, 91, of=finished(tx, 91))
        group(tx, 400)
        stay = {group(tx, 89), group(tx, None), group(tx, 91, of=finished(tx, 89))}
        newest(tx)
    RetentionLoop(database, days=90).tick()
    with database.begin() as tx:
        assert groups_left(tx) == stay


def test_launch_groups_are_deleted_in_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    with database.begin() as tx:
        for _ in range(3):
            group(tx, 91)
        assert delete_empty_groups(tx, keep_s=400 * DAY_S, limit=2) == 0
    loop = RetentionLoop(database, days=90)
    assert loop.tick() == retention.PAUSE_S
    assert loop.tick() == retention.REST_S
    with database.begin() as tx:
        assert groups_left(tx) == set()


def at_minute(minute: int) -> UUID:
    """An id as of one made in that minute."""
    return UUID(int=(1_700_000_000_000 + minute * 60_000) << 80 | 0x7 << 76 | 0x2 << 62)


def jobs_at(tx: Connection, *minutes: int) -> list[UUID]:
    """Jobs as of submits in these minutes, in this order."""
    change = text("UPDATE jobs SET id = :new WHERE id = :old")
    for minute in minutes:
        old = jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="test").job_id
        tx.execute(text("DELETE FROM events WHERE job_id = :old"), {"old": old})
        tx.execute(change, {"old": old, "new": at_minute(minute)})
    return [at_minute(minute) for minute in minutes]


@pytest.mark.parametrize(
    ("gone", "newest_first", "expected"),
    [
        (10, False, [12, 20]),
        (14, False, [20]),
        # Less than a minute behind: that comes twice.
        (13, False, [12, 20]),
        (1, False, [3, 8, 12, 20]),
        (40, False, []),
        (10, True, [8, 3]),
        (19, True, [12, 8, 3]),
        (40, True, [20, 12, 8, 3]),
        (1, True, []),
    ],
)
def test_who_follows_goes_on_where_its_job_was_though_it_is_deleted(
    database: Database, gone: int, *, newest_first: bool, expected: list[int]
) -> None:
    for minute in (3, 8, 12, 20):
        with database.begin() as tx:
            jobs_at(tx, minute)
    with database.begin() as tx:
        page = listing.page(tx, after=at_minute(gone), newest_first=newest_first)
    assert [job.id for job in page.jobs] == [at_minute(minute) for minute in expected]


def test_of_the_minute_of_a_deleted_job_none_is_lost(database: Database) -> None:
    """Ids of transactions side by side are not in the order of submit."""
    order = (3, 11, 9, 10, 12)
    for minute in order:
        with database.begin() as tx:
            jobs_at(tx, minute)
    with database.begin() as tx:
        tx.execute(text("DELETE FROM events"))
        tx.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": at_minute(9)})
        page = listing.page(tx, after=at_minute(9))
    assert {at_minute(10), at_minute(12)} <= {job.id for job in page.jobs}


@pytest.mark.parametrize("newest_first", [False, True])
def test_an_id_that_says_no_time_is_no_place(database: Database, *, newest_first: bool) -> None:
    with database.begin() as tx, pytest.raises(NotFound, match="to go on after"):
        listing.page(tx, after=uuid4(), newest_first=newest_first)


def a_letter(tx: Connection, days_ago: float) -> UUID:
    """A dead letter that was kept so long ago."""
    dead_letters.keep(tx, [refused(message_id=f"{days_ago} days")])
    letter_id = dead_letters.listing(tx, limit=1).letters[0].id
    ago = text(
        "UPDATE dead_letters SET received_at = now() - make_interval(secs => :s) WHERE id = :id"
    )
    tx.execute(ago, {"s": days_ago * DAY_S, "id": letter_id})
    return letter_id


def letters_left(tx: Connection) -> set[UUID]:
    return set(tx.scalars(text("SELECT id FROM dead_letters")))


def test_a_dead_letter_goes_after_its_decision_or_as_long_after_it_was_kept(
    database: Database,
) -> None:
    with database.begin() as tx:
        old, young, just_dropped, to_be_sent = (a_letter(tx, days) for days in (91, 89, 92, 93))
        dead_letters.drop(tx, just_dropped, actor="test")
        dead_letters.replay(tx, to_be_sent, actor="test")
        tx.execute(
            text("UPDATE dead_letters SET decided_at = received_at WHERE id = :id"),
            {"id": to_be_sent},
        )
        assert delete_old_letters(tx, keep_s=KEEP_S, limit=10) == (1, 1)
        assert letters_left(tx) == {young, just_dropped, to_be_sent}
        dead_letters.mark_replayed(tx, [to_be_sent])
        assert delete_old_letters(tx, keep_s=KEEP_S, limit=10) == (1, 0)
        assert letters_left(tx) == {young, just_dropped}
    assert old not in {young, just_dropped}


def test_the_loop_deletes_dead_letters_too_and_says_how_many_nobody_decided_about(
    database: Database,
) -> None:
    with database.begin() as tx:
        a_letter(tx, 91)
        kept = a_letter(tx, 1)
    with structlog.testing.capture_logs() as logs:
        RetentionLoop(database, days=90).tick()
    with database.begin() as tx:
        assert letters_left(tx) == {kept}
    (line,) = [one for one in logs if "nobody decided" in one["event"]]
    assert line["count"] == 1
