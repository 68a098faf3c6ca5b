"""`make chaos`: real processes in a chaos run of faults, then calm, then every promise is looked at.

Ends with counts, a verdict and the command that replays it. A chaos run in which nothing went wrong
counts as a failure: it has shown nothing. The random numbers follow from the seed; what the operating
system does with them does not, so a replay is a chaos run of the same kind, not the same one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from atemporal.errors import AtemporalError
from atemporal.states import JobState
from atemporal.store import attempts
from tests.chaos.clients import CURSED_TYPE, Submitters
from tests.chaos.crew import Crew
from tests.chaos.fault_injector import FaultInjector
from tests.chaos.fleet import REPLICAS, Fleet
from tests.chaos.governor import Governor
from tests.chaos.oracle import Oracle
from tests.chaos.planner import Planner
from tests.chaos.verdict import Verdict, check_all, check_force, dead_letters, timeline
from tests.counting import jobs_by_state

# A token is spent only when its answer was lost and its instance ended before anybody saw it: too
# rare to wait for, so some jobs want a type for which all of that comes together.
_CURSED = {"instance_type": CURSED_TYPE}
_JOBS_A_CORE_S = 0.25
# How likely each fault of the twin is injected into a call or a machine; seconds where it has some.
TWIN_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "spent-token", "probability": 1},
    {"kind": "timeout-after", "call": "RunInstances", "probability": 0.7, "match": _CURSED},
    {"kind": "launch-dies", "probability": 0.7, "seconds": 0.1, "match": _CURSED},
    {"kind": "hidden", "probability": 1, "seconds": 10, "match": _CURSED},
    {"kind": "throttle", "probability": 0.05},
    {"kind": "capacity", "call": "RunInstances", "probability": 0.05},
    {"kind": "quota", "call": "RunInstances", "probability": 0.06},
    {"kind": "unauthorized", "call": "RunInstances", "probability": 0.03},
    {"kind": "fail-before", "probability": 0.02},
    {"kind": "fail-after", "probability": 0.04},
    {"kind": "timeout-before", "probability": 0.01, "seconds": 1},
    {"kind": "timeout-after", "call": "RunInstances", "probability": 0.04, "seconds": 1},
    {"kind": "timeout-after", "call": "TerminateInstances", "probability": 0.04, "seconds": 1},
    {"kind": "partial-launch", "call": "RunInstances", "probability": 0.3},
    {"kind": "false-identity", "probability": 0.15},
    {"kind": "partial-terminate", "call": "TerminateInstances", "probability": 0.5},
    {"kind": "launch-dies", "probability": 0.03, "seconds": 0.5},
    {"kind": "hidden", "probability": 0.15, "seconds": 5},
    {"kind": "stale", "probability": 0.1, "seconds": 3},
    {"kind": "slow-boot", "probability": 0.1, "seconds": 3},
    {"kind": "never-boots", "probability": 0.02},
    {"kind": "cloudinit-hangs", "probability": 0.05},
    {"kind": "dies", "probability": 0.06, "seconds": 8},
    {"kind": "no-network", "probability": 0.03, "seconds": 8},
    {"kind": "no-callback", "probability": 0.04},
    {"kind": "twice", "probability": 0.1},
    {"kind": "forged", "probability": 0.05},
    {"kind": "hangs", "probability": 0.03, "seconds": 60},
    {"kind": "sticks", "probability": 0.03, "seconds": 90},
    {"kind": "spot-interruption", "probability": 0.3, "seconds": 3, "after": 2},
)
LEGEND = """\
Jobs fail and are cancelled on purpose here. Dead letters are the poison and copies of it, as Postgres
keeps them.
VALID: no submit lost or doubled, no second instance for an attempt, none left, each container that
ended recorded as it ended, every job finished, each fire of a schedule accounted for once, no more jobs
of a limited label under way than its limit allows, what is booked is what the twin's own
times come to, to the cent, poison kept, and the audit finds no drift. A replay is a chaos run of the
same kind, not the same one: only the random numbers are the same."""
CALM_S = 600.0
FULL_RUN_S = 240.0
LEAK_LIMIT_S = 120.0
LETTERS_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one chaos run; return 0 when every promise held and every kind of fault was injected."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=0, help="0: as the processors allow")
    parser.add_argument("--seconds", type=float, default=120)
    given = parser.parse_args(argv)
    os.environ.update(AWS_ACCESS_KEY_ID="chaos", AWS_SECRET_ACCESS_KEY="chaos")
    # Each job is a machine that boots on this host: more of them would show the host's overload only.
    count = given.jobs or round(given.seconds * _JOBS_A_CORE_S * (os.cpu_count() or 1))
    directory = Path(tempfile.mkdtemp(prefix="atemporal-chaos-"))
    replay = f"make chaos SEED={given.seed} JOBS={count} SECONDS={given.seconds:.0f}"
    print(f"chaos run: {replay}   logs: {directory}", flush=True)
    good = _run(directory, given.seed, count, given.seconds)
    print(f"{'VALID' if good else 'NOT VALID'}   replay: {replay}")
    if good:
        shutil.rmtree(directory)
    return 0 if good else 1


def _run(directory: Path, seed: int, count: int, seconds: float) -> bool:
    rng = random.Random(seed)
    runs = directory / "runs"
    runs.mkdir()
    begun = time.monotonic()
    fleet = Fleet(directory, random.Random(rng.random()))
    try:
        for fault in TWIN_FAULTS:
            httpx.post(f"{fleet.twin_url}/_twin/faults", json=fault).raise_for_status()
        submitters = Submitters(
            fleet, runs, random.Random(rng.random()), count=count, seconds=seconds
        )
        planner = Planner(fleet, runs, random.Random(rng.random()), seconds=seconds)
        governor = Governor(fleet, random.Random(rng.random()), seconds=seconds)
        injector = FaultInjector(fleet, random.Random(rng.random()), kill_every_s=1.6)
        oracle = Oracle(fleet.twin_url, directory / "twin")
        submitters.start()
        planner.start()
        governor.start()
        injector.start()
        # From here, not from the start of the fleet: on a busy machine that takes as long.
        _report_progress(fleet, oracle, time.monotonic(), seconds)
        injector.stop()
        twin_faults = httpx.get(f"{fleet.twin_url}/_twin/faults").json()["injected"]
        httpx.delete(f"{fleet.twin_url}/_twin/faults").raise_for_status()
        submitters.join()
        planner.join()
        governor.join()
        print(f"{time.monotonic() - begun:6.0f} s  calm", flush=True)
        became_calm = _wait_for_calm(fleet)
        _wait_for_dead_letters(fleet, injector.poison)
        oracle.observe()
        verdict = check_all(
            fleet.database,
            submitters.receipts,
            planner.planned,
            runs,
            twin_url=fleet.twin_url,
            oracle=oracle,
            poison=injector.poison,
            leak_limit_s=LEAK_LIMIT_S,
        )
        verdict.check(became_calm, f"not everything ended within {CALM_S:.0f} s of calm")
        audit = subprocess.run(
            [
                sys.executable,
                "-c",
                "from atemporal.cli import main; main()",
                "audit",
                "-o",
                "json",
            ],
            env=fleet.env,
            capture_output=True,
            check=False,
        )
        verdict.counts["audit's exit code"] = audit.returncode
        verdict.check(audit.returncode == 0, f"the audit finds drift: {audit.stdout[-2000:]!r}")
        verdict.counts |= {
            "notifications lost by purges": injector.purged,
            "injector that found nothing": injector.missed,
            "schedules paused": planner.planned.pauses,
            "schedules edited": planner.planned.edits,
            "pauses of all": governor.pauses,
            "schedules run by hand": len(planner.planned.runs),
        }
        crews: tuple[Crew, ...] = (injector, submitters, planner, governor)
        for failure in (failure for crew in crews for failure in crew.failures):
            verdict.check(False, failure)
        verdict.broken += injector.broken
        faults = Counter(injector.counts) + Counter(twin_faults)
        check_force(
            verdict,
            faults,
            {*injector.kinds, *(str(fault["kind"]) for fault in TWIN_FAULTS)},
            seconds=seconds,
            jobs_asked=count,
            # A short chaos run may miss rare kinds; one long enough for them has to show them all.
            full=seconds >= FULL_RUN_S,
        )
        _print(verdict, faults, time.monotonic() - begun)
        for job_id in {job_id for _, job_id in verdict.broken if job_id}:
            seen = [*injector.timeline, *oracle.of_job(job_id)]
            print(f"job {job_id}\n{timeline(fleet.database, job_id, seen)}")
        return not verdict.broken
    finally:
        fleet.close()


def _report_progress(fleet: Fleet, oracle: Oracle, begun: float, seconds: float) -> None:
    pause = threading.Event()
    while (elapsed := time.monotonic() - begun) < seconds:
        pause.wait(min(15.0, seconds - elapsed))
        try:
            with fleet.database.begin() as tx:
                states = jobs_by_state(tx)
            text = " ".join(f"{state} {number}" for state, number in states.items())
        except AtemporalError as error:
            text = str(error)
        oracle.observe()
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)


def _wait_for_calm(fleet: Fleet) -> bool:
    def calm() -> bool:
        with fleet.database.begin() as tx:
            states = jobs_by_state(tx)
            return set(states) <= {JobState.FINISHED} and not attempts.still_open(tx)

    try:
        fleet.wait("calm", calm, CALM_S)
    except TimeoutError:
        return False
    return True


def _wait_for_dead_letters(fleet: Fleet, poison: Sequence[str]) -> None:
    """Let a scheduler keep the last of them; what is missing then, the verdict names."""
    with contextlib.suppress(TimeoutError):
        fleet.wait(
            "dead letters", lambda: set(poison) <= set(dead_letters(fleet.database)), LETTERS_S
        )


def _print(verdict: Verdict, faults: Counter[str], elapsed_s: float) -> None:
    replicas = "/".join(str(number) for number in REPLICAS.values())
    print(f"chaos run of {elapsed_s:.0f} s, replicas {replicas} ({', '.join(REPLICAS)})")
    for name, number in verdict.counts.items():
        print(f"  {name:32} {number}")
    print(f"faults injected: {sum(faults.values())}")
    for name, number in sorted(faults.items()):
        print(f"  {name:32} {number}")
    print(LEGEND)
    for promise, job_id in verdict.broken:
        print(f"BROKEN  {promise}" + (f"  (job {job_id})" if job_id else ""))


if __name__ == "__main__":
    sys.exit(main())
