"""Pauses of the whole installation: that which is on, and those that were."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Table,
    Text,
    UniqueConstraint,
    true,
)

from atemporal.tables.columns import instant, metadata

pauses = Table(
    "pauses",
    metadata,
    Column("id", BigInteger, primary_key=True),
    # Nothing once it is over: so only one can be on.
    Column("active", Boolean, server_default=true()),
    instant("at", nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    instant("ended_at"),
    Column("ended_by", Text),
    UniqueConstraint("active"),
    CheckConstraint("active", "active"),
)
