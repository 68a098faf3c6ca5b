"""Checks of the daemons: which have a session on the database, and how old their loops' last ticks are.

Promise: a daemon is seen by the name of its session, whichever host it is on. How its loops are is known
where its own port is.
"""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from atemporal.doctor.check import Check, Result, ok, unchecked, warning, worst, wrong
from atemporal.doctor.database import REACHABLE
from atemporal.doctor.instruments import Instruments
from atemporal.doctor.settings import VALUES
from atemporal.errors import AtemporalError
from atemporal.health import STUCK_AFTER_S
from atemporal.store import server

NAMES = ("scheduler", "launcher", "reaper", "api")
_ALL_IN_ONE = "atemporal local"
_TIMEOUT_S = 5.0


def sessions(instruments: Instruments) -> Result:
    """Each kind of daemon has a session on the database."""
    with instruments.database.begin() as tx:
        found = server.sessions(tx)
    if found[_ALL_IN_ONE]:
        return ok(f"`atemporal up` has {found[_ALL_IN_ONE]} sessions")
    missing = [name for name in NAMES if not found[f"atemporal {name}"]]
    if missing:
        return warning(
            f"no session of a {', of a '.join(missing)} on this database",
            "start it with this ATEMPORAL_DATABASE_URL; an api has no session while nobody calls it",
        )
    return ok(", ".join(f"{name}: {found[f'atemporal {name}']} sessions" for name in NAMES))


def is_all_in_one(instruments: Instruments) -> bool:
    """Whether it is `atemporal up` that works on the database, as far as that answers."""
    try:
        with instruments.database.begin() as tx:
            return server.sessions(tx)[_ALL_IN_ONE] > 0
    except AtemporalError:
        return False


def loops(instruments: Instruments) -> Result:
    """The loops of each daemon whose port is known tick, and their last ticks went well."""
    settings = instruments.settings
    known = list(instruments.health)
    if settings.health_port:
        known.append(f"http://{settings.health_host}:{settings.health_port}")
    if not known:
        return unchecked(
            "no daemon's own port is known",
            "give each by --health http://host:port, or set ATEMPORAL_HEALTH_PORT for this host's",
        )
    return worst([_daemon(url.rstrip("/")) for url in known], well=f"all tick: {', '.join(known)}")


def _daemon(url: str) -> Result:
    try:
        report = _readiness(url)
        ages = {name: (float(one["last_tick_age_s"]), one) for name, one in report.items()}
    except (OSError, HTTPException) as error:
        return wrong(
            f"no daemon answers at {url}: {getattr(error, 'reason', error)}",
            "start it, or correct the address; beyond its own host a daemon listens only where "
            "ATEMPORAL_HEALTH_HOST says so",
        )
    except (ValueError, KeyError, TypeError):
        return wrong(f"what answers at {url} is no daemon of ours", "correct the address")
    stuck = [f"{name} for {age:.0f} s" for name, (age, _) in ages.items() if age > STUCK_AFTER_S]
    if stuck:
        return wrong(
            f"{url}: loops have not ended a tick: {', '.join(stuck)}",
            "see its log, then restart it: its work is in Postgres",
        )
    failing = [
        f"{name}: {one.get('error') or 'see its log'}"
        for name, (_, one) in ages.items()
        if not one.get("last_tick_ok")
    ]
    if failing:
        return wrong(f"{url}: the last tick failed of {'; '.join(failing)}", "see its log")
    return ok(url)


def _readiness(url: str) -> dict[str, Any]:
    try:
        with urlopen(f"{url}/readyz", timeout=_TIMEOUT_S) as response:
            content = json.loads(response.read())
    except HTTPError as error:
        # 503 while a loop's last tick has failed: it says which.
        with error:
            content = json.loads(error.read())
    found: dict[str, Any] = content["loops"]
    return found


CHECKS = (
    Check("daemons.sessions", sessions, (REACHABLE,)),
    Check("daemons.loops", loops, (VALUES,)),
)
