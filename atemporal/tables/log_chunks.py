"""The table of log chunks: what containers wrote lately, as their machines sent it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Uuid,
)

from atemporal.tables.columns import VACUUMED, instant, metadata

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    # The position of its first byte in all that the container wrote.
    Column("start", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    instant("at", nullable=False),
    CheckConstraint("start >= 0", "start"),
    Index("ix_log_chunks_at", "at"),
    postgresql_with=VACUUMED,
)
