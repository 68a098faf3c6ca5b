"""PromQL as a parser reads it: which series a query asks for, what is done with them, what is wrong.

A metric of ours is asked for as `docs/metrics.md` says: by labels and values that it has, put together
over replicas by the operator that its definition names, a counter by its rate before its sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import promql_parser
from promql_parser import AggregateExpr, Call, Expr, MatchOp, VectorSelector

from tests.metrics import PREFIX, Documented

TARGET_LABELS = {"deployment", "instance", "job"}
"""What Prometheus itself puts on every series, by the example of a configuration."""
_PARTS = re.compile(r"_(bucket|count|sum)$")
_RATES = {"rate", "increase"}


class Selector(NamedTuple):
    """One selector: its metric, its matchers, the functions and operators around it, outermost first."""

    name: str
    matchers: list[promql_parser.Matcher]
    within: tuple[str, ...]
    aggregates: tuple[str, ...]

    @property
    def family(self) -> str:
        """The metric as it is declared: of a histogram, without what its series end in."""
        return _PARTS.sub("", self.name) if self.name.startswith(PREFIX) else self.name


def selectors(query: str) -> list[Selector]:
    """All selectors of a query.

    Raises:
        ValueError: it is no PromQL.
    """
    above: list[Expr] = []
    found: list[Selector] = []

    def enter(node: Expr) -> None:
        if isinstance(node, VectorSelector):
            calls = [one.func.name for one in above if isinstance(one, Call)]
            aggregates = [
                str(one).split("(")[0].split()[0]
                for one in above
                if isinstance(one, AggregateExpr)
            ]
            found.append(
                Selector(str(node.name), node.matchers.matchers, tuple(calls), tuple(aggregates))
            )
        above.append(node)

    def leave(_node: Expr) -> None:
        above.pop()

    promql_parser.walk(promql_parser.parse(query), enter, leave)
    return found


def mistakes(query: str, page: Mapping[str, Documented]) -> Iterator[str]:
    """What a query makes of our metrics that their definitions do not say, one sentence each."""
    for one in selectors(query):
        if not one.name.startswith(PREFIX):
            continue
        known = page.get(one.family) or page.get(one.name)
        if known is None:
            yield f"{one.name}: there is no such metric"
            continue
        for matcher in one.matchers:
            yield from _of_matcher(matcher, one.name, known)
        inner = one.aggregates[-1] if one.aggregates else "nothing"
        if known.kind != "gauge" and not _RATES & set(one.within):
            yield f"{one.name}: a {known.kind} begins again at 0; ask for its rate() or increase()"
        if inner != known.operator:
            yield f"{one.name}: over replicas it is {known.operator}, not {inner}"


def _of_matcher(matcher: promql_parser.Matcher, name: str, known: Documented) -> Iterator[str]:
    if matcher.name in TARGET_LABELS | {"le"}:
        return
    if matcher.name not in known.labels:
        yield f"{name}: it has no label {matcher.name}"
        return
    values = known.labels[matcher.name]
    plain = matcher.op in (MatchOp.Equal, MatchOp.NotEqual)
    for value in [matcher.value] if plain else matcher.value.split("|"):
        if values and value not in values:
            yield f"{name}: {matcher.name} is never {value!r}"
