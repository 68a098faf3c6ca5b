"""How soon does a person see something, when the tables are large?

A million jobs of another day, and a million that have finished. Each view of the page is asked for many
times, in turns, over HTTP from an API in the same process, signed in: from the request to the last byte
of the page. What the first view weighs is the page with its style, its script and its icon.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import httpx

from atemporal import migrations
from atemporal.states import JobState
from atemporal.store import api_tokens, listing
from atemporal.store.database import Database
from benchmarks.wiring import Figures
from tests import crowd
from tests.api import serving

_ASSETS = ("page.css", "page.js", "icon.svg")


def views(
    database_url: str, future: int = 1_000_000, finished: int = 1_000_000, rounds: int = 40
) -> Figures:
    """p50 and p95 of each view, in milliseconds; and how much the first one weighs."""
    migrations.upgrade(database_url)
    database = Database(database_url)
    with database.begin() as tx:
        filled = bool(listing.page(tx, limit=1).jobs)
    if not filled:
        crowd.fill(database_url, future=future, finished=finished)
    with database.begin() as tx:
        job = listing.page(tx, states=[JobState.FINISHED], limit=1, newest_first=True).jobs[0].id
        secret = api_tokens.create(tx, "benchmark", ["admin"])
    database.dispose()
    paths = {
        "front": "",
        "finished": "/jobs?state=finished",
        "a label all have": "/jobs?label=team%3Dreports",
        "a label of a thousandth": "/jobs?label=part%3D7",
        "an image": "/jobs?image=nightly",
        "an image nobody has": "/jobs?image=nothing-like-it",
        "a job": f"/jobs/{job}",
        "by the end of an id": f"/jobs/{str(job)[-12:]}",
        "instances": "/instances",
        "schedules": "/schedules",
        "limits": "/limits",
        "dead letters": "/dead-letters",
        "health": "/health",
    }
    with serving(database_url) as api:
        http = api.http
        sent = {"token": secret}
        headers = {"Sec-Fetch-Site": "same-origin"}
        assert http.post("/ui/sign-in", data=sent, headers=headers).status_code == 303
        times = _asked(http, paths, rounds)
        weight = sum(len(http.get(f"/ui/static/{name}").content) for name in _ASSETS)
        weight += len(http.get("/ui").content)
    worst = max(times, key=lambda name: times[name]["p95_ms"])
    return {
        "first_view_p95_ms": times["front"]["p95_ms"],
        "first_view_kb": weight / 1000,
        "worst_p95_ms": times[worst]["p95_ms"],
        "worst": worst,
        **times,
    }


def _asked(
    http: httpx.Client, paths: Mapping[str, str], rounds: int
) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds + 1):
        for name, path in paths.items():
            began = time.perf_counter()
            answer = http.get(f"/ui{path}")
            took = 1000 * (time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
            # The first round reads what is to be in memory.
            if number:
                times[name].append(took)
    return {
        name: {
            "p50_ms": statistics.median(found),
            "p95_ms": statistics.quantiles(found, n=20, method="inclusive")[-1],
        }
        for name, found in times.items()
    }
