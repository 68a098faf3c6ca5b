"""What the release before put into each queue is worked off by this one, and what it told others stays.

Promise: no message is lost, and none is refused, because its reader has been upgraded in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import pytest
from sqlalchemy import text

from atemporal.broker import DEAD
from atemporal.messages import (
    EVENTS,
    LAUNCH,
    REAP,
    SCHEDULE,
    SUBMIT,
    JobEvent,
    Message,
    SubmitReply,
)
from atemporal.model.dead_letter import DeadReason, LetterState
from atemporal.states import JobState, Outcome
from atemporal.store import dead_letters
from tests.e2e.system import SERVICES, TwinProcess
from tests.upgrade.before import MESSAGES, ROOT, Before
from tests.upgrade.rolling import Rolling, before

pytestmark = pytest.mark.timeout(900)

# Published by the code of that release itself.
_PUBLISH = """
import json, sys
from atemporal.broker import Link, Outgoing
from atemporal.messages import COMMANDS, JobSubmit, encode
url, *jobs = sys.argv[1:]
link = Link(url, name="test")
link.connect()
bodies = [encode(JobSubmit(job=json.loads(job))) for job in jobs]
assert not link.publish([Outgoing("job.submit", body, "", COMMANDS) for body in bodies])
link.close()
"""
_FIELDS = """
import json
from atemporal.messages import JobEvent, SubmitReply
print(json.dumps({m.__name__: m.model_json_schema()["properties"] for m in (JobEvent, SubmitReply)}))
"""
_LISTENER = "somebody's"


class Broker:
    """What lies in the queues."""

    def __init__(self, url: str) -> None:
        self.url = url

    def listen(self) -> None:
        """Bind a queue that gets all events from now on."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            channel = connection.channel()
            channel.queue_declare(_LISTENER, durable=True)
            channel.queue_bind(_LISTENER, EVENTS, "#")

    def heard(self) -> list[dict[str, Any]]:
        """Take what the listener got."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            channel = connection.channel()
            bodies = []
            while (got := channel.basic_get(_LISTENER, auto_ack=True))[0] is not None:
                bodies.append(json.loads(got[2]))
            return bodies

    def waiting(self, queue: str) -> int:
        """How many messages nobody has in hand."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            declared = connection.channel().queue_declare(queue, passive=True)
            return int(declared.method.message_count)


@pytest.fixture
def system(
    tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess, release: Before
) -> Iterator[Rolling]:
    system = Rolling(tmp_path, twin, release, database_url=database_url, broker_url=broker_url)
    yield system
    system.close()


@pytest.fixture
def broker(broker_url: str) -> Broker:
    return Broker(broker_url)


def test_what_lies_in_every_queue_is_worked_off(
    system: Rolling, broker: Broker, tmp_path: Path
) -> None:
    sign = tmp_path / "end"
    system.start(*before(*SERVICES))
    broker.listen()

    def queued(queue: str, many: int) -> None:
        system.wait(f"{many} in {queue}", lambda: broker.waiting(queue) == many)

    # Two machines start, and one of each is cancelled or comes to its end, while nobody reaps.
    system.stop("reaper-before")
    held = system.hold_until(sign)
    endless = system.run("sleep 600", outcome=Outcome.CANCELLED)
    system.cancel(endless)
    system.wait("the other runs", lambda: bool(system.runs_of(held)))
    sign.touch()
    system.wait_state(held, JobState.FINISHED)
    queued(REAP, 4)
    # One is due, and nobody launches.
    system.stop("launcher-before")
    system.run("true", outcome=Outcome.SUCCEEDED)
    queued(LAUNCH, 1)
    # One is no job.
    _publish(system, '{"image": ""}')
    queued(DEAD, 1)
    # Others come while nobody takes them.
    system.stop("scheduler-before")
    written = [{"image": "busybox", "command": ["true"], "key": key} for key in ("a", "b")]
    _publish(system, *(json.dumps(job) for job in written))
    queued(SUBMIT, 2)
    system.run("true", outcome=Outcome.SUCCEEDED)
    assert _count(system, "events WHERE NOT relayed") > 0
    system.stop("api-before")

    system.start(*SERVICES)
    system.ended()
    by_key = "SELECT id FROM jobs WHERE key IN ('a', 'b')"
    system.wait("what was submitted is there", lambda: _count(system, f"({by_key}) AS _") == 2)
    with system.database.begin() as tx:
        submitted = list(tx.scalars(text(by_key)))
    for job_id in submitted:
        assert system.wait_closed(job_id).outcome is Outcome.SUCCEEDED
    system.wait("all events are out", lambda: _count(system, "events WHERE NOT relayed") == 0)
    for queue in (LAUNCH, REAP, SUBMIT, SCHEDULE, DEAD):
        queued(queue, 0)
    with system.database.begin() as tx:
        (letter,) = dead_letters.listing(tx, limit=10).letters
    assert (letter.queue, letter.reason, letter.state) == (
        SUBMIT,
        DeadReason.INVALID,
        LetterState.KEPT,
    )
    assert "image" in letter.detail
    # Each event is heard, whoever published it, and is one to this release.
    heard = [JobEvent.model_validate(body) for body in broker.heard()]
    assert len(heard) >= _count(system, "events")
    assert len({event.event_id for event in heard}) == _count(system, "events")
    system.in_sync()


def test_bodies_that_were_recorded_are_not_written_anew(release: Before) -> None:
    """`tests/unit/test_messages.py` reads them."""
    kept = list((release.root / MESSAGES).iterdir())
    assert kept
    for path in kept:
        assert (ROOT / MESSAGES / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("message", [JobEvent, SubmitReply])
def test_what_others_read_of_a_message_is_still_in_it(
    release: Before, message: type[Message]
) -> None:
    printed = release.run("-c", _FIELDS)
    was = json.loads(printed.stdout)[message.__name__]
    now = message.model_json_schema()["properties"]
    assert {name: _type(field) for name, field in was.items()}.items() <= {
        name: _type(field) for name, field in now.items()
    }.items()


def _type(field: dict[str, Any]) -> str:
    form = {name: value for name, value in field.items() if name not in ("description", "title")}
    return json.dumps(form, sort_keys=True)


def _publish(system: Rolling, *jobs: str) -> None:
    done = system.release.run("-c", _PUBLISH, system.env["ATEMPORAL_BROKER_URL"], *jobs)
    assert done.returncode == 0, done.stderr


def _count(system: Rolling, what: str) -> int:
    with system.database.begin() as tx:
        return int(tx.scalar(text(f"SELECT count(*) FROM {what}")) or 0)
