"""Many jobs at once: the same as one by one, in their order, whatever others submit meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg2.errors
import pytest
from sqlalchemy import Connection, text

from atemporal.errors import Unavailable
from atemporal.model import JobSpec, parse_spec
from atemporal.store import events, jobs, listing
from atemporal.store.database import Database
from atemporal.store.staging import stage

# Below and above where jobs are staged by COPY.
FEW, MANY = 20, 300


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events CASCADE"))


def spec(**fields: Any) -> JobSpec:
    return parse_spec({"image": "busybox", **fields})


@pytest.mark.parametrize("count", [1, FEW, MANY])
def test_each_is_written_as_it_was_asked_for_with_its_event(
    database: Database, count: int
) -> None:
    odd = "tab\t newline\n return\r back\\slash \\N \\t é 😀 'quoted' \"too\" {}"
    asked = [
        spec(
            env={"N": str(number), "ODD": odd},
            command=["sh", "-c", odd],
            key=f"k\\{number}" if number % 2 else None,
            time="2040-01-01T00:00:00.123456Z" if number % 3 == 0 else None,
            delay_s=60 if number % 3 == 1 else None,
        )
        for number in range(count)
    ]
    with database.begin() as tx:
        done = jobs.submit(tx, asked, actor="me")
    with database.begin() as tx:
        found = [jobs.get(tx, one.job_id) for one in done]
        histories = [events.of_job(tx, one.job_id) for one in done]
    assert [job.spec for job in found] == asked
    assert [job.run_at for job in found] == [one.run_at for one in done]
    assert all(one.created for one in done)
    assert {(event.type, event.actor) for one in histories for event in one} == {
        ("job.scheduled", "me")
    }
    assert [len(one) for one in histories] == [1] * count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_keys_that_are_known_or_stand_twice_give_the_job_that_has_them(
    database: Database, count: int
) -> None:
    asked = [spec(key=f"k{number}") for number in range(count)]
    with database.begin() as tx:
        first = jobs.submit(tx, asked, actor="a")
    mixed = [*asked, spec(), spec(key="new"), spec(key="new"), spec(key="k0", timeout_s=7)]
    with database.begin() as tx:
        again = jobs.submit(tx, mixed, actor="a")
    assert [one.job_id for one in again[:count]] == [one.job_id for one in first]
    assert [one.created for one in again] == [False] * count + [True, True, False, False]
    assert again[count + 1].job_id == again[count + 2].job_id
    assert [bool(one.differs) for one in again] == [False] * (count + 3) + [True]


@pytest.mark.parametrize("sizes", [(MANY, MANY), (FEW, MANY, FEW), (MANY, FEW, MANY)])
def test_several_batches_in_one_transaction_do_not_mix(
    database: Database, sizes: tuple[int, ...]
) -> None:
    with database.begin() as tx:
        done = [jobs.submit(tx, [spec()] * size, actor="a") for size in sizes]
    made = [one.job_id for batch in done for one in batch]
    with database.begin() as tx:
        assert [job.id for job in listing.page(tx, limit=10_000).jobs] == made


def test_a_batch_that_was_rolled_back_leaves_nothing_for_the_next(database: Database) -> None:
    with suppress(InterruptedError), database.begin() as tx:
        jobs.submit(tx, [spec()] * MANY, actor="a")
        raise InterruptedError
    with database.begin() as tx:
        assert len(jobs.submit(tx, [spec()] * MANY, actor="a")) == MANY
    with database.begin() as tx:
        assert listing.page(tx, limit=1).total == MANY


@pytest.mark.parametrize("count", [FEW, MANY])
def test_batches_that_have_keys_in_common_never_wait_for_each_other(
    database: Database, count: int
) -> None:
    """Each in another order, as two systems send them that share some jobs."""
    keys = [f"shared-{number}" for number in range(count)]
    barrier = threading.Barrier(4)

    def submit(submitter: int) -> list[UUID]:
        mine = keys if submitter % 2 else keys[::-1]
        for round_ in range(5):
            barrier.wait(60)
            try:
                with database.begin() as tx:
                    done = jobs.submit(
                        tx, [spec(key=f"{round_}-{key}") for key in mine], actor="a"
                    )
            except Unavailable:
                barrier.abort()
                raise
        return [one.job_id for one in (done if submitter % 2 else done[::-1])]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(submit, range(4))
    assert others == [first] * 3


def test_ids_grow_in_the_order_of_the_submits_while_eight_write_and_a_reader_misses_none(
    database: Database, database_url: str
) -> None:
    writers = 8
    stop = threading.Event()

    def write(writer: int) -> list[UUID]:
        own = Database(database_url)
        made: list[UUID] = []
        # One by one, by JSON and by COPY.
        for size in (1, FEW, MANY, 1, MANY, FEW):
            with own.begin() as tx:
                made += [one.job_id for one in jobs.submit(tx, [spec()] * size, actor="a")]
        own.dispose()
        return made

    def follow() -> list[UUID]:
        seen: list[UUID] = []
        after: UUID | None = None
        while True:
            last = stop.is_set()
            with database.begin() as tx:
                page = listing.page(tx, limit=500, after=after)
            seen += [job.id for job in page.jobs]
            if page.next is None:
                after = seen[-1] if seen else None
                if last:
                    return seen
            else:
                after = page.next

    with ThreadPoolExecutor(writers + 1) as pool:
        following = pool.submit(follow)
        written = list(pool.map(write, range(writers)))
        stop.set()
        seen = following.result(timeout=60)
    assert all(one == sorted(one) for one in written)
    assert set(seen) == {job_id for one in written for job_id in one}


@pytest.mark.parametrize(
    "how",
    [
        "SELECT pg_cancel_backend(:pid)",
        "SELECT pg_terminate_backend(:pid)",
        "SELECT pg_sleep(0.5)",
    ],
    ids=["cancelled", "session ended", "statement timeout"],
)
def test_a_copy_that_postgres_stops_is_an_outage_and_the_next_one_works(
    database: Database, how: str
) -> None:
    def rows(pid: int) -> Iterator[Mapping[str, Any]]:
        with database.each() as other:
            other.execute(text(how), {"pid": pid} if ":pid" in how else {})
        for _ in range(200_000):
            yield {"what": "x" * 100}

    def staged(given: Callable[[int], Iterator[Mapping[str, Any]]]) -> int:
        with database.begin() as tx:
            pid = tx.scalar(text("SELECT pg_backend_pid()"))
            tx.execute(text("SET LOCAL statement_timeout = '300ms'"))
            stage(tx, "staged_by_test", {"what": "text"}, given(pid or 0))
            return tx.scalar(text("SELECT count(*) FROM pg_temp.staged_by_test")) or 0

    with pytest.raises(Unavailable):
        staged(rows)
    assert staged(lambda _: iter([{"what": "y"}])) == 1


@pytest.mark.parametrize("failure", [psycopg2.errors.DiskFull("53100"), SystemError("NULL")])
def test_a_copy_that_the_driver_gives_up_is_an_outage(
    database: Database, failure: Exception
) -> None:
    def fail(*_: object) -> None:
        raise failure

    def staged() -> None:
        cursor = SimpleNamespace(copy_expert=fail, close=bool)
        connection = SimpleNamespace(cursor=lambda: cursor)
        with database.begin() as tx:
            broken: Any = SimpleNamespace(
                execute=tx.execute, connection=connection, dialect=tx.dialect
            )
            stage(broken, "staged_by_test", {"what": "text"}, [])

    with pytest.raises(Unavailable):
        staged()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_without_the_right_to_temporary_tables_jobs_are_made_all_the_same(
    database: Database, count: int
) -> None:
    with suppress(InterruptedError), database.begin() as tx:
        for statement in (
            f'REVOKE TEMPORARY ON DATABASE "{tx.engine.url.database}" FROM PUBLIC',
            "CREATE ROLE without_temporary",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO without_temporary",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO without_temporary",
            "SET LOCAL ROLE without_temporary",
        ):
            tx.execute(text(statement))
        made = jobs.submit(tx, [spec()] * count, actor="a")
        assert listing.page(tx, limit=1).total == len(made) == count
        # All of this, the role as well, is undone.
        raise InterruptedError


@pytest.mark.parametrize("count", [1, FEW, MANY])
def test_a_key_whose_job_is_deleted_meanwhile_is_asked_for_again(
    database: Database, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [spec(key=f"k{number}") for number in range(count)]
    with database.begin() as tx:
        jobs.submit(tx, asked, actor="a")
    look_up = jobs._by_key

    def after_a_deletion(tx: Connection, keys: Any) -> Any:
        with database.begin() as retention:
            retention.execute(text("DELETE FROM events"))
            retention.execute(text("DELETE FROM jobs WHERE key = :key"), {"key": f"k{count - 1}"})
        return look_up(tx, keys)

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_by_key", after_a_deletion)
        with pytest.raises(Unavailable, match="submit it again"), database.begin() as tx:
            jobs.submit(tx, asked, actor="a")
    with database.begin() as tx:
        again = jobs.submit(tx, asked, actor="a")
    assert [one.created for one in again] == [False] * (count - 1) + [True]


@pytest.mark.parametrize(
    "large",
    [
        {"command": ["x" * 3000]},
        {"env": {f"VARIABLE_{number}": "" for number in range(150)}},
        {"labels": {f"label-{number}": "x" * 50 for number in range(20)}},
    ],
    ids=["command", "env", "labels"],
)
def test_what_is_told_of_differences_is_short_however_large_the_jobs_are(
    database: Database, large: dict[str, Any]
) -> None:
    with database.begin() as tx:
        jobs.submit(tx, [spec(key=f"k{n}", **large) for n in range(MANY)], actor="a")
        done = jobs.submit(tx, [spec(key=f"k{n}") for n in range(MANY)], actor="a")
    assert all(one.differs for one in done)
    assert max(len(how) for one in done for how in one.differs.values()) < 250


def test_what_is_told_of_all_differences_together_is_bounded_and_few_are_looked_at_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_SHOWN", 1000)
    sizes: list[int] = []
    look_up = jobs._by_key

    def counted(tx: Connection, keys: Any) -> Any:
        sizes.append(len(keys))
        return look_up(tx, keys)

    monkeypatch.setattr(jobs, "_by_key", counted)
    with database.begin() as tx:
        first = jobs.submit(tx, [spec(key=f"k{n}") for n in range(MANY)], actor="a")
        asked = [spec(key=f"k{n}", command=["x" * 90]) for n in range(MANY)]
        done = jobs.submit(tx, asked, actor="a")
    assert sizes == [200, 100]
    assert [one.job_id for one in done] == [one.job_id for one in first]
    assert "command" in done[0].differs
    assert sum("command" in one.differs for one in done) < 20
    assert "is not said" in done[-1].differs["job"]
