"""What a check is, and what comes of it.

Promise: a check changes nothing, and its result speaks to an operator: what is wrong, with which
setting, queue, table or right, and what to do. A check that could not be made is never `ok`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atemporal.doctor.instruments import Instruments


class Status(StrEnum):
    """How it is: well; well enough, with something to know; wrong; or nobody could see."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNCHECKED = "unchecked"


_WORST = (Status.WRONG, Status.UNCHECKED, Status.WARNING, Status.OK)


@dataclass(frozen=True)
class Result:
    """What a check saw, in a sentence, and what to do; `no_answer`: nobody was there to ask."""

    status: Status
    detail: str
    do: str = ""
    no_answer: bool = False


@dataclass(frozen=True)
class Check:
    """One question. It is asked once all that it `needs` came out as ok or with a warning.

    `daemons` are those whose rights it is about; none: it is about no rights, or everybody's.
    """

    name: str
    ask: Callable[[Instruments], Result]
    needs: tuple[str, ...] = ()
    daemons: tuple[str, ...] = ()


def ok(detail: str) -> Result:
    """It is well."""
    return Result(Status.OK, detail)


def warning(detail: str, do: str) -> Result:
    """Work goes on, and somebody should know."""
    return Result(Status.WARNING, detail, do)


def wrong(detail: str, do: str, *, no_answer: bool = False) -> Result:
    """Something does not work, or will not."""
    return Result(Status.WRONG, detail, do, no_answer)


def unchecked(detail: str, do: str = "") -> Result:
    """It could not be seen."""
    return Result(Status.UNCHECKED, detail, do)


def worst(parts: Iterable[Result], *, well: str) -> Result:
    """One result of several: as bad as the worst, with all that is not ok; `well` when all are."""
    bad = [part for part in parts if part.status is not Status.OK]
    if not bad:
        return ok(well)
    status = min((part.status for part in bad), key=_WORST.index)
    return Result(
        status,
        "; ".join(dict.fromkeys(part.detail for part in bad)),
        "; ".join(dict.fromkeys(part.do for part in bad if part.do)),
        all(part.no_answer for part in bad),
    )
