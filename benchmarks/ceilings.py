"""What could at most be had of the same servers in the same run?

`publishing`: the broker alone. Frames of 100,000 messages like the product's are encoded beforehand and
sent in blocks to the same durable quorum queue, at most 2,000 unconfirmed; the clock runs until the last
confirm. What is left is the socket, and RabbitMQ.
`claiming`: Postgres alone. A procedure claims due jobs out of the same table in batches of 500, by
the product's way through the index and with the same row of history for each, and commits each batch;
no byte leaves the server.
Not cheated: persistent messages, mandatory, each confirmed; each batch an fsynced commit.
"""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from struct import pack
from typing import Any
from uuid import uuid4

from amqp import Message
from amqp.serialization import dumps

from atemporal.broker import Outgoing, declare
from atemporal.messages import JobDue
from atemporal.model import AttemptRef
from atemporal.store.due import DUE
from atemporal.tables import DISPATCH_AT, PRIORITY
from benchmarks import backlog
from benchmarks.dispatch import FUTURE, depth
from benchmarks.reader import amqp_connection
from benchmarks.wiring import Figures

_BASIC, _PUBLISH = 60, 40
_BLOCK = 500
_WINDOW = 2_000

_CLAIM = f"""
CREATE OR REPLACE PROCEDURE benchmark_claim(batch int) LANGUAGE plpgsql AS $$
DECLARE
    claimed int;
    last_at timestamptz := '-infinity';
    last_id uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    LOOP
        SET LOCAL enable_bitmapscan = off;
        WITH due AS (
            SELECT ctid AS place, {DISPATCH_AT} AS at FROM jobs
            WHERE {DUE} AND {PRIORITY} = 0 AND ({DISPATCH_AT}, id) >= (last_at, last_id)
              AND {DISPATCH_AT} <= now()
            ORDER BY {DISPATCH_AT}, id LIMIT batch FOR NO KEY UPDATE SKIP LOCKED
        ), moved AS (
            UPDATE jobs SET state = 'queued', attempt = attempt + 1, updated_at = now(),
                queued_at = now(), waits_for = NULL
            FROM due WHERE jobs.ctid = due.place RETURNING jobs.id, jobs.attempt, due.at
        ), logged AS (
            INSERT INTO events (job_id, attempt, type, actor)
            SELECT id, attempt, 'job.queued', 'benchmark' FROM moved
        )
        SELECT at, id, count(*) OVER () INTO last_at, last_id, claimed
        FROM moved ORDER BY at DESC, id DESC LIMIT 1;
        EXIT WHEN claimed IS NULL;
        COMMIT;
    END LOOP;
END $$
"""


def publishing(broker_url: str, messages: int = 100_000) -> Figures:
    """Confirmed messages a second of pre-encoded frames to a durable quorum queue."""
    declare(broker_url)
    with closing(amqp_connection(broker_url)) as connection:
        channel = connection.channel()
        blocks = [
            b"".join(_frames(channel.channel_id) for _ in range(min(_BLOCK, messages - first)))
            for first in range(0, messages, _BLOCK)
        ]
        channel.confirm_select()
        confirmed, refused = _Confirmed(), 0

        def on_refusal(*_: Any) -> None:
            nonlocal refused
            refused += 1

        channel.events["basic_ack"].add(confirmed.on_ack)
        channel.events["basic_nack"].add(on_refusal)
        channel.events["basic_return"].add(on_refusal)
        began, sent = time.perf_counter(), 0
        for block in blocks:
            connection.transport.sock.sendall(block)
            sent = min(sent + _BLOCK, messages)
            while sent - confirmed.count > _WINDOW:
                connection.drain_events(timeout=30)
        while confirmed.count < messages:
            connection.drain_events(timeout=30)
        seconds = time.perf_counter() - began
        queued = depth(connection)
    if refused or queued != messages:
        raise RuntimeError(f"{messages} sent, {queued} queued, {refused} refused or returned")
    return {"messages": messages, "messages_per_s": messages / seconds, "seconds": seconds}


def claiming(database_url: str, due: int = 50_000, future: int = FUTURE) -> Figures:
    """Jobs a second that a procedure in Postgres claims, batch by batch, each batch committed."""
    backlog.ensure(database_url, future)
    with closing(backlog.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(_CLAIM)
        at = backlog.clock(cursor) - timedelta(seconds=1)
        backlog.add_due(cursor, due, at)
        backlog.settle(cursor)
        began = time.perf_counter()
        cursor.execute("CALL benchmark_claim(500)")
        seconds = time.perf_counter() - began
        cursor.execute("SELECT count(*) FROM jobs WHERE due_at = %s AND state = 'queued'", (at,))
        (claimed,) = cursor.fetchone()
    if claimed != due:
        raise RuntimeError(f"{due} jobs were due, {claimed} claimed")
    return {"jobs": due, "jobs_per_s": due / seconds, "seconds": seconds}


class _Confirmed:
    """How many messages are confirmed: all up to a number, and some beyond it."""

    def __init__(self) -> None:
        self._all, self._beyond = 0, set[int]()

    @property
    def count(self) -> int:
        return self._all + len(self._beyond)

    def on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._all = max(self._all, tag)
            self._beyond = {one for one in self._beyond if one > self._all}
        elif tag > self._all:
            self._beyond.add(tag)


def _frames(channel: int) -> bytes:
    """One message as the product publishes it, in the bytes that go over the wire."""
    message = Outgoing.of(JobDue.of(AttemptRef(uuid4(), 1)))
    content = Message(
        message.body,
        content_type="application/json",
        delivery_mode=2,
        message_id=message.message_id,
        application_headers={},
    )
    method = pack(">HH", _BASIC, _PUBLISH) + dumps(
        "Bssbb", (0, message.exchange, message.routing_key, True, False)
    )
    header = pack(">HHQ", _BASIC, 0, len(message.body)) + content._serialize_properties()
    return b"".join(
        pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
        for kind, payload in ((1, method), (2, header), (3, message.body))
    )
