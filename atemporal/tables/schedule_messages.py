"""The table of the messages by which schedules were changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text, Uuid, text

from atemporal.tables.columns import VACUUMED, instant, metadata

schedule_messages = Table(
    "schedule_messages",
    metadata,
    Column("key", Text, primary_key=True),
    # The schedule's, which may be gone or not there yet.
    Column("name", Text, nullable=False),
    Column("serial", BigInteger),
    # Of what the message says, so that another one with its key is known from it.
    Column("digest", Text, nullable=False),
    # What a `schedule.run` made.
    Column("job_id", Uuid),
    instant("at", nullable=False, now=True),
    Index(
        "ix_schedule_messages_serial",
        "name",
        "serial",
        postgresql_where=text("serial IS NOT NULL"),
    ),
    Index("ix_schedule_messages_at", "at"),
    postgresql_with=VACUUMED,
)
