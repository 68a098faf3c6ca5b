"""What is measured: questions, each of several measures that are compared within one run.

A measure is a function that returns a dict of figures. It is given what its parameters name: a database
(`database_url`), a virtual host (`broker_url`), a folder of its own (`directory`), whether to be quick
(`quick`), and its own arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TODAY = "8d1827d"
"""The build before all that was done for speed: what ours is measured beside."""


@dataclass(frozen=True)
class Measure:
    """One function with its arguments, run `times` times; `build` names a commit to run it against.

    The measures of a question share a database, and its rows stay from run to run; one named by
    `database` is shared with other questions too. One run may take `limit_s` seconds. `full` ones take
    long, and run only when they are asked for; so do, in a quick run, those that nothing makes quick
    (`quick` is None).
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] | None = field(default_factory=dict)
    times: int = 3
    build: str | None = None
    full: bool = False
    database: str = ""
    limit_s: float = 300.0

    @property
    def module(self) -> str:
        """The module of the function, beneath `benchmarks`."""
        return self.function.partition(":")[0]


@dataclass(frozen=True)
class Question:
    """What somebody wants to know, and the measures that answer it, run in turns."""

    name: str
    title: str
    measures: Sequence[Measure]


def selected(
    questions: Sequence[Question],
    words: Sequence[str],
    *,
    full: bool = False,
    quick: bool = False,
) -> list[Question]:
    """The questions, and of each the measures, that the words name; without words all.

    A question's name takes all of it, unless measures of it are named too.

    Raises:
        ValueError: a word names nothing.
    """
    names = {question.name for question in questions}
    measures = {one.name for question in questions for one in question.measures}
    unknown = [word for word in words if word not in names | measures]
    if unknown:
        known = "; ".join(
            f"{question.name} ({', '.join(one.name for one in question.measures)})"
            for question in questions
        )
        raise ValueError(f"nothing is called {', '.join(unknown)}; there are: {known}")
    asked = names.intersection(words)
    chosen: list[Question] = []
    for question in questions:
        if asked and question.name not in asked:
            continue
        here = [one for one in question.measures if one.name in words]
        if words and not here and question.name not in asked:
            continue
        # What takes long is run when it is asked for: by its name, or with all.
        usual = [
            one
            for one in question.measures
            if (full or not one.full) and not (quick and one.quick is None)
        ]
        if here or usual:
            chosen.append(Question(question.name, question.title, tuple(here or usual)))
    return chosen
