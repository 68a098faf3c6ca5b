"""The tables of concurrency limits: what is set, who changed it, and what counts against it."""

from __future__ import annotations

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Column, Integer, Table, Text, Uuid

from atemporal.tables.columns import VACUUMED, instant, metadata

concurrency_limits = Table(
    "concurrency_limits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("most", Integer, nullable=False),
    instant("changed_at", nullable=False),
    Column("changed_by", Text, nullable=False),
    CheckConstraint("most >= 0", "most"),
)

limit_changes = Table(
    "limit_changes",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text, nullable=False),
    Column("before", Integer),
    Column("after", Integer),
    Column("actor", Text, nullable=False),
    instant("at", nullable=False),
)

slots = Table(
    "slots",
    metadata,
    # What it counts against, the value of a label in the place of `*`.
    Column("name", Text, primary_key=True),
    Column("job_id", Uuid, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    # Of a slot of vCPUs: the types that its instance may be of.
    Column("instance_types", ARRAY(Text)),
    instant("taken_at", nullable=False),
    postgresql_with=VACUUMED,
)

instance_types = Table(
    "instance_types",
    metadata,
    Column("name", Text, primary_key=True),
    Column("vcpus", Integer),
    instant("asked_at"),
    CheckConstraint("vcpus >= 0", "vcpus"),
)
