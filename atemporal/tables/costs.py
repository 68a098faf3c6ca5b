"""The table of costs: sums of what closed attempts cost, by the hour. It outlives jobs and attempts."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.tables.columns import VACUUMED, metadata

costs = Table(
    "costs",
    metadata,
    # Of the attempts' ends, as EC2 confirmed them.
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("instance_type", Text, primary_key=True),
    Column("capacity_type", Text, primary_key=True),
    # SHA-256 of the labels: they are too large for an index.
    Column("labels_digest", LargeBinary, primary_key=True),
    Column("labels", JSONB, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    # So many of them had no price.
    Column("unpriced", BigInteger, nullable=False),
    Column("seconds", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    CheckConstraint("attempts >= unpriced AND unpriced >= 0", "unpriced"),
    CheckConstraint("seconds >= 0 AND cost >= 0", "not_negative"),
    # A sum is written again and again: room in its page, and no index that has to know.
    postgresql_with={**VACUUMED, "fillfactor": "70"},
)
