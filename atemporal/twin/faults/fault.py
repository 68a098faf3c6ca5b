"""The faults of one machine.

Promise: a fault is planned once and is on disk before it takes effect, so it takes effect whether
or not the twin lives. It is journaled when it has had an effect, by the process that carried it
out: the twin, the machine or the machine's `curl`. A lasting one (hidden, stale, slow-boot,
no-network, ...) is journaled once an instance; a callback that was doubled, forged or dropped is
journaled each time.

    instances/<i-id>/faults.json        the machine's faults by their kinds; absent: none
    instances/<i-id>/<kind>.injected    the lasting ones that have been journaled
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from atemporal.twin import jsonfile
from atemporal.twin.faults.journal import Journal

FILE = "faults.json"


@dataclass(frozen=True)
class Fault:
    """One fault of one machine, from `begins_at` (seconds since the epoch).

    `seconds` is how long it takes; None is for ever.
    """

    kind: str
    rule: str
    begins_at: float
    seconds: float | None = None
    code: str = ""

    @property
    def ends_at(self) -> float:
        """When it is over."""
        return float("inf") if self.seconds is None else self.begins_at + self.seconds

    def is_active(self, now: float) -> bool:
        """Whether it has begun and is not over."""
        return self.begins_at <= now < self.ends_at


def read(directory: Path) -> dict[str, Fault]:
    """The faults of the machine in this directory, by their kinds."""
    content = jsonfile.read(directory / FILE) or {}
    return {kind: Fault(**fault) for kind, fault in content.items()}


def write(directory: Path, faults: dict[str, Fault]) -> None:
    """Save the faults of the machine in this directory."""
    directory.mkdir(exist_ok=True)
    jsonfile.replace(directory / FILE, {kind: asdict(fault) for kind, fault in faults.items()})


def journal(directory: Path, fault: Fault, *, once: bool = False) -> None:
    """Record that a fault had an effect on the machine in this directory."""
    if once:
        try:
            (directory / f"{fault.kind}.injected").touch(exist_ok=False)
        except FileExistsError:
            return
    Journal(directory.parents[1]).add(fault.kind, fault.rule, instance=directory.name)


def injected(directory: Path, kind: str) -> bool:
    """Whether the machine in this directory is to have such a lasting fault; it is journaled then."""
    one = read(directory).get(kind)
    if one is not None:
        journal(directory, one, once=True)
    return one is not None


def hang(directory: Path) -> None:
    """Hang, if the machine in this directory is to hang when it powers off."""
    hanging = read(directory).get("hangs")
    if hanging is not None:
        journal(directory, hanging, once=True)
        threading.Event().wait(hanging.seconds)
