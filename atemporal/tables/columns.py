"""What the tables are made of: their metadata, and the columns and rules that come again and again."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Column, DateTime, MetaData, func

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# A fifth, the default, of a large table is too much to be left dead, or unknown to the planner.
VACUUMED = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_insert_scale_factor": "0.01",
    "autovacuum_analyze_scale_factor": "0.01",
}


def one_of(column: str, values: type[StrEnum]) -> str:
    """The rule that a column holds one of the values, as SQL."""
    listed = ", ".join(f"'{value.value}'" for value in values)
    return f"{column} IN ({listed})"


def instant(name: str, *, nullable: bool = True, now: bool = False) -> Column[object]:
    """A column of instants; with `now` the database's time is the default."""
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)
