"""Whether a migration only adds, so that the release before works on the new shape: pure.

Promise: a statement is taken when it is surely one that the release before does not notice. What the
rule does not know is a mistake, until it is listed in `contracted` with why it is none.
Mechanism: the statements of all steps are read in their order: of each constraint is known what it was
before, of each table in which step it was made. A table of a new step is used by no older release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Statement = tuple[str, str]
"""A step, and one of its statements."""


class Mistake(NamedTuple):
    """What a step takes away: its number, and the statement or the part of it that does so."""

    step: str
    what: str


_IN = r"CHECK \( ?(?P<column>\w+) IN \( ?(?P<values>'[^()]*') ?\) ?\)"
_CHECK_OF_VALUES = re.compile(rf"CONSTRAINT (?P<name>\w+) {_IN}")
_HARMLESS = re.compile(
    r"CREATE TABLE |CREATE INDEX |ANALYZE |ALTER INDEX \w+ RENAME TO "
    # An ON CONFLICT of the release before may need a unique one.
    r"|DROP INDEX (IF EXISTS )?ix_"
)
_HARMLESS_CLAUSE = re.compile(
    r"SET \(|ALTER (COLUMN )?\w+ (SET DEFAULT|DROP NOT NULL|SET STATISTICS)|VALIDATE CONSTRAINT"
    r"|DROP CONSTRAINT (IF EXISTS )?(ck|fk)_"
)
_NEW_COLUMN = re.compile(
    r"ADD (COLUMN )?(IF NOT EXISTS )?(?!CONSTRAINT|PRIMARY|UNIQUE|CHECK|FOREIGN)\w+ "
)
_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)")
_ON = re.compile(r"(?:ALTER TABLE (?:ONLY |IF EXISTS )*|CREATE UNIQUE INDEX \w+ ON )(\w+)")


def mistakes(statements: Iterable[Statement], after: str) -> Iterator[Mistake]:
    """Yield what steps later than the step `after` may break for the release that ends with it."""
    new_tables: set[str] = set()
    values: dict[str, tuple[str, frozenset[str]]] = {}
    for step, statement in statements:
        sql = " ".join(statement.split())
        if step > after:
            new_tables.update(_TABLE.findall(sql))
            on = _ON.match(sql)
            if not (on and on[1] in new_tables) and not _HARMLESS.match(sql):
                for part in _mistaken_parts(sql, values):
                    yield Mistake(step, part)
        for check in _CHECK_OF_VALUES.finditer(sql):
            values[check["name"]] = _values(check)


def _mistaken_parts(sql: str, values: dict[str, tuple[str, frozenset[str]]]) -> Iterator[str]:
    altered = re.match(r"ALTER TABLE (?:ONLY |IF EXISTS )*\w+ (.*)", sql)
    if altered is None:
        yield sql
        return
    for clause in _split(altered[1]):
        check = _CHECK_OF_VALUES.search(clause)
        if _HARMLESS_CLAUSE.match(clause):
            continue
        if _NEW_COLUMN.match(clause):
            if "NOT NULL" not in clause or "DEFAULT" in clause:
                continue
        elif clause.startswith("ADD CONSTRAINT") and check and _widens(check, values):
            continue
        yield clause


def _widens(check: re.Match[str], values: dict[str, tuple[str, frozenset[str]]]) -> bool:
    column, now = _values(check)
    was = values.get(check["name"])
    return was is not None and was[0] == column and was[1] <= now


def _values(check: re.Match[str]) -> tuple[str, frozenset[str]]:
    return check["column"], frozenset(re.findall(r"'([^']*)'", check["values"]))


def _split(clauses: str) -> Iterator[str]:
    """Cut at the commas that are in no bracket and no quotes."""
    depth, begun, quoted = 0, 0, False
    for place, letter in enumerate(clauses):
        quoted ^= letter == "'"
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0 and not quoted:
            yield clauses[begun:place].strip()
            begun = place + 1
    yield clauses[begun:].strip()
