"""The columns of `atemporal list`: what each is called, and what it shows of a job.

Promise: for a person instants are distances and an id is its end; on a pipe both are written in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click
from click.shell_completion import CompletionItem

from atemporal.cli.output import distance
from atemporal.cli.usual import SCHEDULE_LABEL
from atemporal.cli.wording import at, ending, reason
from atemporal.client import Instance, Job

_SHOWN_OF_ID: Final = 12


def _last(job: Job) -> Instance | None:
    return job["instances"][-1] if job["instances"] else None


def _of_last(name: str) -> Callable[[Job, bool], str]:
    """A text of the job's last attempt."""

    def show(job: Job, _person: bool) -> str:
        found = {**last}.get(name) if (last := _last(job)) else None
        return "" if found is None else str(found)

    return show


def _moment(read: Callable[[Job], str | None]) -> Callable[[Job, bool], str]:
    """An instant of the job: for a person how far away it is."""

    def show(job: Job, person: bool) -> str:
        text = read(job)
        if text is None:
            return ""
        return distance(at(text), at(job["read_at"])) if person else text

    return show


def _id(job: Job, person: bool) -> str:
    # For a person's eyes the end of the id, which is what differs between ids and what they type.
    return job["id"][-_SHOWN_OF_ID:] if person else job["id"]


def _state(job: Job, _person: bool) -> str:
    """How it stands; of one that waits for a concurrency limit for which."""
    wait = job["waiting_limit"]
    return f"{ending(job)} (limit {wait['limit']})" if wait else ending(job)


def _wait(job: Job, _person: bool) -> str:
    parts = (job["waiting_for"], job["waiting_on"])
    return ": ".join(part for part in parts if part)


def _started(job: Job) -> str | None:
    return last["running_at"] if (last := _last(job)) else None


_COLUMNS: Final[dict[str, tuple[str, Callable[[Job, bool], str]]]] = {
    "id": ("the job's id", _id),
    "state": ("its state, or its outcome once it has finished", _state),
    "exit": (
        "its exit code",
        lambda job, _: "" if job["exit_code"] is None else str(job["exit_code"]),
    ),
    "image": ("its image", lambda job, _: job["image"]),
    "due": ("when it is to run", _moment(lambda job: job["due_at"])),
    "attempts": ("how many attempts were begun", lambda job, _: str(len(job["instances"]))),
    "labels": (
        "its labels",
        lambda job, _: ",".join(f"{name}={value}" for name, value in job["labels"].items()),
    ),
    "schedule": (
        "the recurring schedule that made it",
        lambda job, _: job["labels"].get(SCHEDULE_LABEL, ""),
    ),
    "key": ("its key", lambda job, _: job["key"] or ""),
    "command": ("its command", lambda job, _: " ".join(job["command"] or ())),
    "priority": ("its priority", lambda job, _: str(job["priority"])),
    "submitted": ("when it was submitted", _moment(lambda job: job["created_at"])),
    "started": ("when the last attempt's container started", _moment(_started)),
    "finished": ("when it finished", _moment(lambda job: job["finished_at"])),
    "reason": ("why it ended so", lambda job, _: reason(job)),
    "waits": ("what it waits for", _wait),
    "until": ("when that wait ends at the latest", _moment(lambda job: job["waiting_until"])),
    "instance": ("the last attempt's instance", _of_last("instance_id")),
    "type": ("the last attempt's instance type", _of_last("instance_type")),
    "capacity": ("the last attempt's capacity type", _of_last("capacity_type")),
    "address": ("the last attempt's address", _of_last("public_dns")),
}
USUAL: Final = ("id", "state", "exit", "image", "due", "attempts", "labels")
"""The columns that are shown unless others are asked for."""

KEPT: Final = ("id", "state")
"""The columns that a narrow terminal shows whole."""


def help_text() -> str:
    """All columns, for the help of a command."""
    return "\n".join(f"    {name:<10} {what}" for name, (what, _) in _COLUMNS.items())


def read(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[str, ...]:
    """An option's callback: names of columns with commas between."""
    if text is None:
        return USUAL
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in _COLUMNS:
            raise click.BadParameter(f"{name!r} is no column; there are {', '.join(_COLUMNS)}")
    return tuple(dict.fromkeys(names))


def complete(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last of several names."""
    before, comma, begun = incomplete.rpartition(",")
    given = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}", help=what)
        for name, (what, _) in _COLUMNS.items()
        if name.startswith(begun) and name not in given
    ]


def row(job: Job, columns: Sequence[str], *, person: bool) -> tuple[str, ...]:
    """A job as one line of the table."""
    return tuple(_COLUMNS[name][1](job, person) for name in columns)
