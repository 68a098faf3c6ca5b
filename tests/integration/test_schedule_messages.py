"""Recurring schedules by messages, on real Postgres and RabbitMQ: each is applied once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.broker import DEAD, Link, Outgoing
from atemporal.broker.dead_letters import read
from atemporal.messages import REAP, SCHEDULE, JobCancel, decode
from atemporal.model import parse_spec
from atemporal.model.dead_letter import RecordedLetter
from atemporal.model.schedule import LABEL, Schedule
from atemporal.recurrence import HORIZON_S
from atemporal.states import Outcome
from atemporal.store import dead_letters, fires, jobs, retention, schedules
from atemporal.store.database import Database
from atemporal.terms import Terms
from services.scheduler.dead_letters import DeadLetterLoop
from services.scheduler.schedule_messages import ScheduleMessageLoop
from tests.chaos.dying import DIED, Point, Service
from tests.chaos.dying import run as run_until_dead
from tests.integration.messaging import Loop, Publisher, until
from tests.integration.recurring import begin
from tests.servers.rabbitmq import purge

JOB = {"image": "nginx:1.9", "env": {"A": "1"}, "labels": {"team": "blue"}}
NIGHTLY = {"name": "nightly", "cron": "0 2 * * *", "zone": "America/Sao_Paulo", "job": JOB}
NAMED = ("pause", "resume", "run", "delete")


@pytest.fixture
def link(broker_url: str, database: Database) -> Iterator[Link]:
    """A link for looking at queues; queues and tables are emptied after the test."""
    link = Link(broker_url, name="test")
    link.connect()
    yield link
    link.close()
    purge(broker_url, SCHEDULE, REAP, DEAD)
    with database.begin() as tx:
        tables = "schedules, fires, schedule_messages, jobs, attempts, events, dead_letters"
        tx.execute(text(f"TRUNCATE {tables}"))


@pytest.fixture
def loop(broker_url: str, database: Database) -> Iterator[ScheduleMessageLoop]:
    made = ScheduleMessageLoop(database, Link(broker_url, name="schedule-messages"))
    yield made
    made.reset()


class Planner(Publisher):
    """One that publishes messages about schedules."""

    def __init__(self, url: str, loop: ScheduleMessageLoop) -> None:
        super().__init__(url)
        self._loop = loop
        self._number = count()

    def tell(self, what: str, message_id: str | None = "", body: bytes = b"", **more: Any) -> None:
        """Publish; `schedule.run` and such of nightly, unless it says otherwise."""
        if what in NAMED:
            more = {"name": "nightly", **more}
        whole = {"type": f"schedule.{what}", "v": 1, **more}
        own = f"m-{next(self._number)}" if message_id == "" else message_id
        self.send(body or whole, own, f"schedule.{what}")

    def reply(self, loop: Loop) -> dict[str, Any]:
        reply = super().reply(loop)
        assert (reply["type"], reply["v"]) == ("schedule.reply", 1)
        return reply

    def ask(self, what: str, message_id: str | None = "", **more: Any) -> dict[str, Any]:
        self.tell(what, message_id, **more)
        return self.reply(self._loop)

    def put(self, message_id: str = "", **fields: Any) -> dict[str, Any]:
        serial = {"serial": fields.pop("serial")} if "serial" in fields else {}
        return self.ask("put", message_id, schedule=NIGHTLY | fields, **serial)


@pytest.fixture
def planner(broker_url: str, link: Link, loop: ScheduleMessageLoop) -> Iterator[Planner]:
    planner = Planner(broker_url, loop)
    yield planner
    planner.close()


def kept(database: Database) -> Sequence[RecordedLetter]:
    with database.begin() as tx:
        return dead_letters.listing(tx, limit=10).letters


def known(database: Database, name: str = "nightly") -> Schedule | None:
    with database.begin() as tx:
        return schedules.known(tx, name)


def the(database: Database) -> Schedule:
    schedule = known(database)
    assert schedule is not None
    return schedule


def dead(link: Link) -> list[Any]:
    batch = link.receive(DEAD, limit=100, timeout_s=2)
    link.ack(batch)
    return [read(one) for one in batch]


def job_ids(database: Database) -> list[UUID]:
    with database.begin() as tx:
        return list(tx.scalars(text("SELECT id FROM jobs ORDER BY id")))


def test_a_schedule_is_made_and_edited_by_its_name(database: Database, planner: Planner) -> None:
    made = planner.put(overlap="skip", start_deadline_s=600)
    assert (made["status"], made["name"], made["version"], made["paused"]) == (
        *("accepted", "nightly", 1, False),
    )
    assert (the(database).job.env, the(database).overlap) == ({"A": "1"}, "skip")
    same = planner.put(overlap="skip", start_deadline_s=600)
    assert (same["status"], same["version"]) == ("duplicate", 1)
    edited = planner.put(cron="0 3 * * *", job={"image": "nginx:1.10"})
    assert (edited["status"], edited["version"]) == ("accepted", 2)
    schedule = the(database)
    # All of it is as the message says: what it leaves out is at its default.
    assert (schedule.cron, schedule.overlap, schedule.start_deadline_s) == (
        *("0 3 * * *", "allow", None),
    )
    assert (schedule.job.env, schedule.job.labels) == ({}, {})


def test_it_is_paused_resumed_run_and_deleted(database: Database, planner: Planner) -> None:
    planner.put()
    for what, status, paused in (
        ("pause", "accepted", True),
        ("pause", "duplicate", True),
        ("resume", "accepted", False),
        ("resume", "duplicate", False),
    ):
        reply = planner.ask(what)
        assert (reply["status"], reply["paused"]) == (status, paused)
    ran = planner.ask("run", "run-1")
    with database.begin() as tx:
        job = jobs.get(tx, UUID(ran["job_id"]))
        actors = tx.scalars(text("SELECT DISTINCT actor FROM events")).all()
    assert (job.spec.key, job.spec.labels[LABEL], actors) == ("run-1", "nightly", ["amqp"])
    assert planner.ask("delete")["status"] == "accepted"
    assert known(database) is None
    gone = planner.ask("delete")
    assert (gone["status"], "version" in gone) == ("duplicate", False)


@pytest.mark.parametrize("by", ["message id", "key"])
def test_one_that_comes_again_changes_nothing_however_late(
    database: Database, planner: Planner, by: str
) -> None:
    """A message that is sent twice would take back what came in between."""

    def again(what: str, name: str, **more: Any) -> dict[str, Any]:
        if by == "key":
            return planner.ask(what, None, key=name, **more)
        return planner.ask(what, name, **more)

    first = {"schedule": NIGHTLY}
    assert again("put", "put-1", **first)["status"] == "accepted"
    assert again("put", "put-2", schedule=NIGHTLY | {"cron": "0 4 * * *"})["version"] == 2
    late = again("put", "put-1", **first)
    assert (late["status"], late["version"]) == ("duplicate", 2)
    ran = again("run", "run-1")
    # Another version of it would be another job.
    planner.put(job={"image": "nginx:2"})
    second = again("run", "run-1")
    assert (second["status"], second["job_id"]) == ("duplicate", ran["job_id"])
    assert len(job_ids(database)) == 1
    again("pause", "pause-1")
    again("resume", "resume-1")
    assert again("pause", "pause-1")["paused"] is False
    again("delete", "delete-1")
    assert again("put", "put-1", **first)["status"] == "duplicate"
    assert known(database) is None


def test_with_serials_an_earlier_message_never_follows_a_later_one(
    database: Database, planner: Planner
) -> None:
    assert planner.put(serial=2, cron="0 4 * * *")["status"] == "accepted"
    late = planner.put(serial=1)
    assert (late["status"], late["version"]) == ("outdated", 1)
    assert the(database).cron == "0 4 * * *"
    assert planner.ask("pause", serial=2)["status"] == "outdated", "as high as the last"
    assert planner.ask("delete", serial=9)["status"] == "accepted"
    assert planner.put(serial=8)["status"] == "outdated"
    assert known(database) is None
    assert planner.put(serial=10)["status"] == "accepted"


def test_a_delete_counts_though_what_it_deletes_comes_only_later(
    database: Database, planner: Planner
) -> None:
    assert planner.ask("delete", serial=2)["status"] == "duplicate"
    assert planner.put(serial=1)["status"] == "outdated"
    assert known(database) is None


def test_a_refusal_names_the_schedule_that_it_is_about(planner: Planner) -> None:
    refused = planner.put(cron="every day")
    assert (refused["status"], refused["name"]) == ("rejected", "nightly")


def test_a_message_is_known_again_by_a_release_that_knows_more_fields(
    database: Database, planner: Planner
) -> None:
    planner.put()
    planner.ask("pause", "pause-1")
    with database.begin() as tx:
        digest = tx.scalar(text("SELECT digest FROM schedule_messages WHERE key = 'pause-1'"))
    plain = {"name": "nightly", "type": "schedule.pause", "v": 1}
    assert digest == hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def test_a_key_of_another_message_is_refused(planner: Planner, link: Link) -> None:
    planner.put("put-1")
    for reply in (planner.put("put-1", cron="0 4 * * *"), planner.ask("pause", "put-1")):
        assert (reply["status"], list(reply["errors"])) == ("rejected", ["key"])
    assert len(dead(link)) == 2


@pytest.mark.parametrize(
    ("what", "more", "field"),
    [
        ("put", {"schedule": NIGHTLY | {"cron": "5/15 * * * *"}}, "cron"),
        ("put", {"schedule": NIGHTLY | {"zone": "Mars/Base"}}, "zone"),
        ("put", {"schedule": NIGHTLY | {"name": "a b"}}, "name"),
        ("put", {"schedule": NIGHTLY | {"job": {"image": "No Image"}}}, "job.image"),
        ("put", {"schedule": NIGHTLY | {"job": {**JOB, "time": "2030-01-01T00:00Z"}}}, "job.time"),
        ("put", {"schedule": NIGHTLY | {"colour": "red"}}, "colour"),
        ("put", {"schedule": []}, "schedule"),
        ("put", {}, "schedule"),
        ("put", {"schedule": NIGHTLY, "serial": -1}, "serial"),
        ("pause", {"name": "other"}, "name"),
        ("resume", {"name": "other"}, "name"),
        ("run", {"name": "other"}, "name"),
        ("run", {"name": "a b"}, "name"),
        ("run", {"at": 1}, "at"),
        ("delete", {"message_id": None}, "key"),
        ("delete", {"key": "a\nb"}, "key"),
        ("put", {"body": b"\xff"}, "body"),
        ("put", {"body": b'{"type": "schedule.start", "v": 1}'}, "type"),
    ],
)
def test_what_can_not_be_applied_is_refused_with_the_field(
    database: Database, planner: Planner, link: Link, what: str, more: dict[str, Any], field: str
) -> None:
    refused = planner.ask(what, **more)
    assert (refused["status"], list(refused["errors"])) == ("rejected", [field])
    (letter,) = dead(link)
    assert (letter.queue, list(letter.errors)) == (SCHEDULE, [field])
    # It holds up nobody, and is not remembered: nothing was applied.
    assert planner.put()["status"] == "accepted"


def test_a_run_whose_key_is_that_of_another_job_is_refused(
    database: Database, planner: Planner, link: Link
) -> None:
    planner.put()
    with database.begin() as tx:
        jobs.submit_one(tx, parse_spec({"image": "busybox", "key": "taken"}), actor="test")
    assert list(planner.ask("run", "taken")["errors"]) == ["key"]


def test_one_that_was_refused_can_be_replayed(
    database: Database, broker_url: str, planner: Planner, loop: ScheduleMessageLoop
) -> None:
    assert planner.ask("pause", "pause-1")["status"] == "rejected"
    planner.put()
    letters = DeadLetterLoop(database, Link(broker_url, name="letters"), interval_s=0.0)
    until(letters, lambda: bool(kept(database)))
    (found,) = kept(database)
    with database.begin() as tx:
        letter: RecordedLetter = dead_letters.replay(tx, found.id, actor="op")
    assert letter.queue == SCHEDULE
    letters.tick()
    letters.reset()
    assert (planner.reply(loop)["status"], the(database).paused_at is None) == ("accepted", False)


def test_a_job_by_claim_is_refused_where_machines_can_prove_nothing(
    database: Database, broker_url: str, planner: Planner
) -> None:
    link = Link(broker_url, name="unable")
    unable = ScheduleMessageLoop(database, link, terms=Terms(claims=False))
    job = {"image": "busybox", "secrets": {"A": "hush"}}
    planner.tell("put", schedule={**NIGHTLY, "job": job})
    errors = planner.reply(unable)["errors"]
    unable.reset()
    assert "ATEMPORAL_IDENTITY_CERTIFICATES" in errors["job.secrets"]
    assert "hush" not in str(errors)
    assert known(database) is None


def test_where_they_are_not_taken_all_are_refused(
    database: Database, broker_url: str, planner: Planner, link: Link
) -> None:
    closed = ScheduleMessageLoop(database, Link(broker_url, name="closed"), allowed=False)
    planner.tell("put", schedule=NIGHTLY)
    why = planner.reply(closed)["errors"]["type"]
    closed.reset()
    assert "ATEMPORAL_SCHEDULE_MESSAGES is off" in why
    assert known(database) is None
    assert len(dead(link)) == 1


def test_the_reaper_hears_of_a_machine_that_is_not_wanted_any_more(
    database: Database, planner: Planner, link: Link
) -> None:
    planner.put()
    at = the(database).next_fire_at
    assert at is not None
    with database.begin() as tx:
        tx.execute(text("UPDATE schedules SET look_at = now()"))
        now = at - timedelta(seconds=HORIZON_S)
        locked = fires.due(tx, at, limit=10)
        fires.decide_due(tx, locked, now, rules=locked[0].rules_version, actor="scheduler")
    (job_id,) = job_ids(database)
    ref = begin(database, job_id, running=False)
    planner.ask("pause")
    (delivery,) = link.receive(REAP, limit=10, timeout_s=2)
    assert decode(REAP, delivery.body) == JobCancel.of(ref)
    link.ack([delivery])
    with database.begin() as tx:
        assert jobs.get(tx, job_id).outcome is Outcome.CANCELLED


def test_each_is_counted_by_what_became_of_it(planner: Planner) -> None:
    def counted() -> dict[str, float]:
        name = "atemporal_schedule_messages_total"
        results = ("accepted", "duplicate", "outdated", "rejected")
        return {one: REGISTRY.get_sample_value(name, {"result": one}) or 0 for one in results}

    before = counted()
    planner.put(serial=5)
    planner.put(serial=6)
    planner.put(serial=4)
    planner.ask("pause", name="other")
    assert {one: many - before[one] for one, many in counted().items()} == dict.fromkeys(before, 1)


def test_what_is_remembered_goes_with_the_retention(database: Database, planner: Planner) -> None:
    planner.put("put-1")
    with database.begin() as tx:
        assert retention.delete_old_schedule_messages(tx, keep_s=3600, limit=10) == 0
        tx.execute(text("UPDATE schedule_messages SET at = now() - interval '2 h'"))
        assert retention.delete_old_schedule_messages(tx, keep_s=3600, limit=10) == 1


@pytest.mark.parametrize(
    ("kind", "when"),
    [("commit", "before"), ("commit", "after"), ("ack", "before"), ("ack", "after")],
)
def test_a_scheduler_that_dies_leads_to_nothing_twice(
    database: Database,
    database_url: str,
    broker_url: str,
    link: Link,
    loop: ScheduleMessageLoop,
    tmp_path: Path,
    kind: str,
    when: str,
) -> None:
    """Two edits and a run, in hand when it dies as by kill -9."""
    sent: list[tuple[str, dict[str, Any]]] = [
        ("put", {"schedule": NIGHTLY}),
        ("put", {"schedule": NIGHTLY | {"cron": "0 4 * * *"}}),
        ("run", {"name": "nightly"}),
    ]
    link.publish(
        [
            Outgoing(
                SCHEDULE,
                json.dumps({"type": f"schedule.{what}", "v": 1, **more}).encode(),
                f"m-{number}",
                "",
            )
            for number, (what, more) in enumerate(sent)
        ]
    )
    env = {
        "ATEMPORAL_DATABASE_URL": database_url,
        "ATEMPORAL_BROKER_URL": broker_url,
        "ATEMPORAL_POLL_INTERVAL_S": "0.1",
    }
    death = Point(loop.name, kind, 1, when)
    log = tmp_path / "log"
    service = Service("scheduler", env, str(log), str(tmp_path / "effects"), death)
    process = multiprocessing.get_context("spawn").Process(target=run_until_dead, args=(service,))
    process.start()
    process.join(90)
    process.kill()
    process.join()
    assert process.exitcode == DIED, log.read_text()[-3000:]
    until(loop, lambda: the(database).version == 2 and len(job_ids(database)) == 1)
    # What was applied and not acknowledged comes once more.
    for _ in range(3):
        loop.tick()
    assert (the(database).version, the(database).cron) == (2, "0 4 * * *")
    assert len(job_ids(database)) == 1
    assert dead(link) == []
