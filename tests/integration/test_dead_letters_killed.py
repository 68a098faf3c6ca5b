"""A scheduler dies as by kill -9: no dead letter is lost or kept twice, and each replay is sent."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from atemporal.broker import DEAD, Link, Outgoing
from atemporal.messages import COMMANDS, SUBMIT
from atemporal.model.dead_letter import LetterState, RecordedLetter
from atemporal.settings import Settings
from atemporal.store import dead_letters
from atemporal.store.database import Database
from services.scheduler.__main__ import loops as scheduler_loops
from services.scheduler.dead_letters import DeadLetterLoop
from services.scheduler.submit import SubmitLoop
from tests.chaos.dying import DIED, Point, Service, run
from tests.servers.rabbitmq import purge

_SPAWN = multiprocessing.get_context("spawn")
LOOP = "dead-letters"


@pytest.fixture
def link(broker_url: str, database: Database) -> Iterator[Link]:
    link = Link(broker_url, name="test")
    link.connect()
    yield link
    link.close()
    purge(broker_url, SUBMIT, DEAD)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events, dead_letters"))


def killed_at(death: Point, database_url: str, broker_url: str, directory: Path) -> None:
    """Run the whole scheduler until it dies there."""
    env = {
        "ATEMPORAL_DATABASE_URL": database_url,
        "ATEMPORAL_BROKER_URL": broker_url,
        "ATEMPORAL_POLL_INTERVAL_S": "0.1",
        "ATEMPORAL_LOG_FORMAT": "json",
    }
    service = Service("scheduler", env, str(directory / "log"), str(directory / "effects"), death)
    process = _SPAWN.Process(target=run, args=(service,))
    process.start()
    process.join(90)
    log = (directory / "log").read_text()[-3000:]
    alive = process.is_alive()
    process.kill()
    process.join()
    assert not alive, f"it never came to {death}:\n{log}"
    assert process.exitcode == DIED, log


def until(done: Callable[[], bool], *loops: Any) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "it did not come true in time"
        for loop in loops:
            loop.tick()


def letters(database: Database) -> list[RecordedLetter]:
    with database.begin() as tx:
        page = dead_letters.listing(tx, limit=100)
        return [dead_letters.get(tx, one.id) for one in page.letters]


def test_the_loop_is_one_of_the_scheduler(database: Database) -> None:
    settings = Settings.model_validate({"broker_url": "memory://"})
    assert LOOP in [loop.name for loop in scheduler_loops(settings, database)]


@pytest.mark.parametrize(
    ("kind", "when"),
    [("commit", "before"), ("commit", "after"), ("ack", "before"), ("ack", "after")],
)
def test_a_letter_in_hand_is_kept_once(
    database: Database,
    database_url: str,
    broker_url: str,
    link: Link,
    tmp_path: Path,
    kind: str,
    when: str,
) -> None:
    link.publish([Outgoing(DEAD, b"?", f"m-{n}", "") for n in range(5)])
    killed_at(Point(LOOP, kind, 1, when), database_url, broker_url, tmp_path)
    after_death = len(letters(database))
    assert (after_death == 0) is ((kind, when) == ("commit", "before"))
    loop = DeadLetterLoop(database, Link(broker_url, name="next"), interval_s=0.0)
    until(lambda: len(letters(database)) >= 5, loop)
    # Whatever was not acknowledged has come by now, and once more makes no row.
    for _ in range(3):
        loop.tick()
    loop.reset()
    assert sorted(one.message_id or "" for one in letters(database)) == [
        f"m-{n}" for n in range(5)
    ]


@pytest.mark.parametrize("message_id", ["", "order-17"])
@pytest.mark.parametrize(
    ("kind", "when", "sent"),
    [
        ("publish reply", "before", False),
        ("publish reply", "after", False),
        ("confirm", "after", False),
        ("commit", "before", False),
        ("commit", "after", True),
    ],
)
def test_a_replay_is_sent_and_makes_one_job(
    database: Database,
    database_url: str,
    broker_url: str,
    link: Link,
    tmp_path: Path,
    kind: str,
    when: str,
    message_id: str,
    sent: bool,
) -> None:
    loop = DeadLetterLoop(database, Link(broker_url, name="first"), interval_s=0.0)
    body = json.dumps({"image": "busybox", "delay_s": 3600}).encode()
    link.publish([Outgoing("job.submit", body, message_id, COMMANDS)])
    reader = Link(broker_url, name="reader")
    (one,) = reader.receive(SUBMIT, limit=1, timeout_s=5)
    reader.dead_letter(one, "image: unknown here", {"image": "unknown here"})
    reader.ack([one])
    reader.close()
    until(lambda: len(letters(database)) == 1, loop)
    loop.reset()
    with database.begin() as tx:
        dead_letters.replay(tx, letters(database)[0].id, actor="op")
    killed_at(Point(LOOP, kind, 1, when), database_url, broker_url, tmp_path)
    (letter,) = letters(database)
    assert letter.state is (LetterState.REPLAYED if sent else LetterState.REPLAYING)
    next_loop = DeadLetterLoop(database, Link(broker_url, name="next"), interval_s=0.0)
    submits = SubmitLoop(database, Link(broker_url, name="submit"))
    until(
        lambda: letters(database)[0].state is LetterState.REPLAYED and jobs(database) > 0,
        next_loop,
        submits,
    )
    for _ in range(3):
        submits.tick()
    next_loop.reset()
    submits.reset()
    assert jobs(database) == 1
    assert len(letters(database)) == 1


def jobs(database: Database) -> int:
    with database.begin() as tx:
        return int(tx.scalar(text("SELECT count(*) FROM jobs")) or 0)
