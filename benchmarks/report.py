"""The page about speed, as a pure function of the results.

Promise: the same files give the same page; nothing is run, read or asked for it. Why a number is
missed is written by a person, in `remarks.json` beside the results, and shown as long as it is missed.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.numbers import NUMBERS, Number, Verdict
from benchmarks.results import Result, figures

REMARKS = "remarks"
_HEAD = """# Benchmarks

This page is written by `make bench` from the files in `benchmarks/results`; do not edit it. Each
figure is the median of its runs. A ratio is of figures of one run of the harness, which lets the
measures take turns: on a machine that others use too, ratios can be trusted further than figures.
`others processors` is how many processors' worth of work others did during a run.
"""
_REPEAT = """## How to repeat

```
make bench                          # everything: 25 minutes on two idle processors
make bench QUICK=1                  # small and once, into build/benchmarks: does it work?
make bench FULL=1                   # with what takes very long: a backlog of 10,000,000 jobs
make bench ARGS="dispatch latency"  # one question, or some measures of it; `ARGS=list` names them
make bench ARGS="profile dispatch"  # where the time goes
make bench ARGS=render              # this page again, from the files
```

It brings its own Postgres (fsync and synchronous commits on) and RabbitMQ (durable quorum queues, each
publish confirmed), both on the same processors as everything else. Peers get a virtual environment of
their own, with the versions in `benchmarks/peers.txt`. Another build is checked out beside this one
and asked by the same code.
"""


def render(results: Mapping[str, Result]) -> str:
    """The whole page, as Markdown."""
    questions = {name: one for name, one in results.items() if name != REMARKS}
    remarks: Mapping[str, Any] = results.get(REMARKS, {})
    parts = [
        _HEAD,
        "\n".join(_numbers(results, remarks)),
        "\n".join(_conditions(questions)),
        _REPEAT,
        "## What was measured, and how",
        *("\n".join(_question(name, one)) for name, one in questions.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _numbers(results: Mapping[str, Result], remarks: Mapping[str, Any]) -> Iterator[str]:
    yield "## The numbers"
    yield ""
    yield "| what | target | measured | | the build before |"
    yield "|---|---|---|---|---|"
    missed: list[str] = []
    for number in NUMBERS:
        verdict = number.verdict(results)
        measured = "; ".join(_parts(number, results)) or "-"
        mark = f"**{verdict}**" if verdict is Verdict.MISSED else str(verdict)
        yield f"| {number.what} | {number.target} | {measured} | {mark} | {number.before} |"
        if verdict is Verdict.MISSED:
            why = remarks.get(number.name, "no reason is known yet.")
            missed.append(_item(f"*{number.what}*: {why}"))
    if missed:
        yield from ("", "What is missed, and why:", "", *missed)


def _parts(number: Number, results: Mapping[str, Result]) -> Iterator[str]:
    for part in number.parts:
        value = part.value(results)
        if value is not None:
            text = f"{_number(value)} {part.unit}".strip()
            yield f"**{text}**" if part.verdict(results) is Verdict.MISSED else text


def _conditions(questions: Mapping[str, Result]) -> Iterator[str]:
    yield "## Conditions"
    yield ""
    machines = {_machine(one): None for one in _all_conditions(questions)}
    yield from map(_item, machines)
    yield ""
    yield "| question | run | commit | load before / after | took |"
    yield "|---|---|---|---|---|"
    for name, result in questions.items():
        rows = {_row(name, one["conditions"]): None for one in _measured(result)}
        yield from rows


def _row(name: str, conditions: Mapping[str, Any]) -> str:
    changed = " and changes" if conditions.get("changed") else ""
    quick = " (quick)" if conditions.get("quick") else ""
    before, after = (conditions[key][0] for key in ("load_before", "load_after"))
    return (
        f"| {name} | {conditions['run']}{quick} | {conditions['commit']}{changed} "
        f"| {before} / {after} | {conditions['took_s']} s |"
    )


def _all_conditions(questions: Mapping[str, Result]) -> Iterator[Mapping[str, Any]]:
    for result in questions.values():
        yield from (one["conditions"] for one in _measured(result))


def _measured(result: Result) -> Iterator[Mapping[str, Any]]:
    yield from (one for one in result["measures"].values() if one.get("runs"))


def _machine(conditions: Mapping[str, Any]) -> str:
    postgres, rabbitmq = conditions["postgres"], conditions["rabbitmq"]
    libraries = ", ".join(f"{name} {one}" for name, one in conditions["libraries"].items())
    return (
        f"{conditions['processors']} processors ({conditions['processor']}), "
        f"{conditions['memory_gb']} GB, {conditions['system']}, Python {conditions['python']}; "
        f"PostgreSQL {postgres['server_version']} (fsync {postgres['fsync']}, synchronous_commit "
        f"{postgres['synchronous_commit']}, full_page_writes {postgres['full_page_writes']}, "
        f"shared_buffers {postgres['shared_buffers']}); RabbitMQ {rabbitmq['version']} "
        f"(Erlang {rabbitmq['erlang']}); {libraries}"
    )


def _question(name: str, result: Result) -> Iterator[str]:
    yield f"### {name}: {result['title']}"
    for text in result.get("method", ()):
        yield ""
        yield text
    yield ""
    yield "| measure | figure | median | least to most | runs |"
    yield "|---|---|---|---|---|"
    for measure, found in result["measures"].items():
        label = f"{measure} ({found['build']})" if "build" in found else measure
        for figure, values in figures(found.get("runs", ())):
            between = (
                f"{_number(min(values))} to {_number(max(values))}" if len(values) > 1 else ""
            )
            yield (
                f"| {label} | {figure.replace('_', ' ')} | {_number(statistics.median(values))} "
                f"| {between} | {len(values)} |"
            )
            label = ""
        if not found.get("runs"):
            yield f"| {label} | {_first_line(found.get('failed', 'not run'))} | | | |"
    remarks = dict.fromkeys(_texts(result["measures"]))
    if remarks:
        yield ""
        yield from (f"- {text}" for text in remarks)


def _texts(measures: Mapping[str, Any]) -> Iterator[str]:
    for measure, found in measures.items():
        for run in found.get("runs", ()):
            yield from (
                f"{measure}, {name.replace('_', ' ')}: {text}"
                for name, text in run.items()
                if isinstance(text, str)
            )


def _item(text: str) -> str:
    """One item of a list, in lines that a person can read."""
    return textwrap.fill(
        f"- {text}",
        width=118,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _first_line(text: str) -> str:
    return text.splitlines()[0].replace("|", "/") if text else "failed"


def _number(value: float) -> str:
    """Three digits that mean something, and all of a whole number."""
    if value == 0 or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
