"""Health: whether the daemons come along, as what they write down shows it, and what to do if not.

Promise: nothing is asked of a daemon: each row says what is in the tables now. A daemon's own word is at
its port, `/readyz`, and in its metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from fastapi import APIRouter, Depends, Request, Response

from atemporal.model import Pause
from atemporal.states import BlockedReason
from atemporal.store import counts, dead_letters, launches, pauses, progress
from atemporal.store.database import server_time
from atemporal.waiting import Phase, what_is_awaited
from services.api.ui import wording
from services.api.ui.page import Nav
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("health", "Health")
# A scheduler takes a due job within a second or two, a relay an event; a sweep takes up to some minutes.
_LATE_S: Final = 30.0


class Sign(NamedTuple):
    """One row: what is known, whether that is well, and what to do if it is not."""

    what: str
    shown: str
    well: bool
    advice: str = ""
    link: str = ""


_ADVICE: Final = {
    Phase.DUE: "Does a scheduler run, and RabbitMQ? Its log and /readyz say why not.",
    Phase.QUEUED: "Does a launcher run? Its log and /readyz say why not.",
    Phase.LIMIT: "They wait for room under a limit, which may be as it should be.",
}


def routes(site: Site) -> APIRouter:
    """Build the call."""
    made = site.pages.routes()
    reader = site.visitors.reader()

    @made.get("/health")
    def show(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        site.database.check_schema()
        with site.database.begin() as tx:
            now = server_time(tx)
            found = [
                _paused(pauses.current(tx)),
                *_backlog(counts.oldest_waiting(tx)),
                _put_off(launches.unlaunched(tx, stale_s=site.settings.stale_after_s).blocked),
                _relay(progress.unrelayed(tx)),
                *_sweeps(progress.sweeps(tx)),
                *_paces(progress.paces(tx)),
                _letters(dead_letters.undecided(tx)),
            ]
        return site.pages.render(
            request, visitor, "health.html", here=NAV.path, title="Health", now=now, signs=found
        )

    return made


def _backlog(oldest: dict[Phase, tuple[int, float]]) -> list[Sign]:
    signs = []
    for phase in (Phase.DUE, Phase.LIMIT, Phase.QUEUED):
        many, oldest_s = oldest.get(phase, (0, 0.0))
        what = f"Jobs that wait for {what_is_awaited(phase)}"
        shown = f"{many:,}, the longest for {wording.span(oldest_s)}" if many else "none"
        meant = phase is Phase.LIMIT
        well = meant or oldest_s <= _LATE_S
        link = "limits" if phase is Phase.LIMIT else ""
        advice = _ADVICE[phase] if many and (not well or meant) else ""
        signs.append(Sign(what, shown, well, advice, link))
    return signs


def _paused(pause: Pause | None) -> Sign:
    if pause is None:
        return Sign("Pause of the installation", "none", True)
    why = f": {pause.reason}" if pause.reason else ""
    shown = f"since {wording.instant(pause.since)} by {pause.by}{why}"
    advice = "Nothing new is dispatched. `atemporal resume` ends that."
    return Sign("Pause of the installation", shown, False, advice)


def _put_off(blocked: Mapping[BlockedReason | None, int]) -> Sign:
    """Launches without an instance: those that EC2 refuses, and those that are on their way."""
    many = {reason: count for reason, count in blocked.items() if reason is not None}
    what = "Launches that EC2 refuses or puts off"
    if not many:
        return Sign(what, "none", True)
    shown = ", ".join(f"{count:,} by {reason}" for reason, count in sorted(many.items()))
    advice = "A job's page has EC2's words; `atemporal doctor` says what to do."
    return Sign(what, shown, False, advice)


def _relay(unrelayed: progress.Unrelayed) -> Sign:
    what = "Events that no listener was sent yet"
    if not unrelayed.many:
        return Sign(what, "none", True)
    more = " or more" if unrelayed.many == progress.COUNTED else ""
    shown = f"{unrelayed.many:,}{more}, the oldest for {wording.span(unrelayed.oldest_s)}"
    well = unrelayed.oldest_s <= _LATE_S
    advice = "" if well else "Does a scheduler run, and RabbitMQ? They are sent once both do."
    return Sign(what, shown, well, advice)


def _sweeps(sweeps: list[progress.Sweep]) -> list[Sign]:
    if not sweeps:
        advice = "Does a reaper run? Instances are not swept without one."
        return [Sign("Sweep of the reapers", "none has begun", False, advice)]
    return [
        Sign(
            f"Sweep {one.name!r}",
            f"held by {one.holder}"
            if one.overdue_s <= 0
            else f"by nobody for {wording.span(one.overdue_s)}",
            one.overdue_s <= _LATE_S,
            ""
            if one.overdue_s <= _LATE_S
            else "Does a reaper run? Its log and /readyz say why not.",
        )
        for one in sweeps
    ]


def _paces(paces: dict[str, float]) -> list[Sign]:
    return [
        Sign(
            f"Pace of {name}",
            f"{pace:.0%} of its rate" + ("" if pace >= 1 else ", because EC2 has throttled"),
            pace >= 0.5,
            "" if pace >= 0.5 else "EC2 throttles. It grows back by itself; see the runbook.",
        )
        for name, pace in paces.items()
    ]


def _letters(undecided: int) -> Sign:
    more = " or more" if undecided >= dead_letters.COUNTED else ""
    return Sign(
        "Dead letters that nobody has decided about",
        f"{undecided:,}{more}" if undecided else "none",
        not undecided,
        "Look at each: replay it once its reader can take it, or drop it." if undecided else "",
        "dead-letters" if undecided else "",
    )
