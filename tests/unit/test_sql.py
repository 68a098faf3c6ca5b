"""No text that somebody sends becomes SQL: what is asked is fixed when its module is loaded.

A statement that is put together later stands here, with what is put into it. All else is a parameter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# File of the store and function -> what is put in: our own names, clauses and numbers.
MADE_LATER: dict[tuple[str, str], set[str]] = {
    # A number of ours.
    ("database.py", "only_one"): {"self.longest_tick_s"},
    # Fields of the rows of a table of constants in that module.
    ("expired.py", "_statement"): {
        *("self.table", "self.may_go", "self.old", "shown", "further", "name"),
        *("', '.join(keys)", "', '.join(names)", "', '.join((f'{name} DESC' for name in names))"),
    },
    ("invariants.py", "violations"): {"invariant.query"},
    # One of two statements of that module, each made when it is loaded.
    ("jobs.py", "_submit_from"): {
        "source",
        "START_BY.format(time='run_at', seconds='start_deadline_s')",
    },
    ("rate_limits.py", "_statements"): {
        *("_OFFER.format(lock='', **parts) + _PEEK", "_OFFER.format(lock='', **parts)"),
    },
    # Names of our own columns, with their types.
    ("staging.py", "stage"): {"table", "declared"},
}
_FORMS = ("format", "replace", "join")
# An expression of the library's own, whose values are parameters.
_COUNTED = re.compile(r"(limit|before|before\.version) \+ 1")
_ASKS = ("text", "execute", "literal_column", "exec_driver_sql", "copy_expert")


def _made_later(source: str) -> Iterator[tuple[str, str]]:
    """The functions that put something into SQL, with what they put in."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            if getattr(call.func, "id", getattr(call.func, "attr", "")) in _ASKS:
                yield from ((function.name, put_in) for put_in in _put_in(call.args[0]))


def _put_in(asked: ast.expr) -> Iterator[str]:
    """What is not written there: fields, sums and forms."""
    for part in ast.walk(asked):
        if isinstance(part, ast.FormattedValue):
            yield ast.unparse(part.value)
            continue
        added = isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add | ast.Mod)
        formed = isinstance(part, ast.Call) and getattr(part.func, "attr", "") in _FORMS
        if added or formed:
            yield ast.unparse(part)


def test_sql_is_fixed_but_for_what_is_listed() -> None:
    found: dict[tuple[str, str], set[str]] = {}
    # No other package has SQL (test_layout.py), and a migration reads nothing but tables.
    for file in sorted((ROOT / "atemporal" / "store").glob("*.py")):
        for function, put_in in _made_later(file.read_text()):
            # A constant of a module is as fixed as the rest.
            if not put_in.replace("_", "").isupper() and not _COUNTED.fullmatch(put_in):
                found.setdefault((file.name, function), set()).add(put_in)
    assert found == MADE_LATER, "from where does it come?"


@pytest.mark.parametrize(
    "asked", ['f"SELECT {x}"', '"SELECT " + x', '"SELECT %s" % x', '"{}".format(x)']
)
def test_the_check_sees_text_that_is_put_in(asked: str) -> None:
    assert list(_made_later(f"def f(x):\n    tx.execute(text({asked}))"))
