"""After the chaos run and the calm: is everything that was promised true?

Promise: every `judge_...` takes data and looks at nothing else, so that each can be shown what is
broken; `judge` collects the data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from atemporal.model import Job
from atemporal.model.schedule import LABEL
from atemporal.states import AttemptState, JobState
from atemporal.store import concurrency_limits, events, invariants, listing, schedules
from atemporal.store.database import Database
from tests.chaos.bills import Bill, booked_of, differences
from tests.chaos.clients import Receipts
from tests.chaos.exits import Asked, Deaths, Run, broken_promises, read_runs
from tests.chaos.governor import LIMIT, TEAM, TEAM_LABEL
from tests.chaos.oracle import End, Oracle
from tests.chaos.planner import Planned
from tests.e2e.system import instances
from tests.fires import broken_fires
from tests.under_way import dispatches, exceeded

# Database and twin have the same clock; a transaction's time is that of its begin.
CLOCKS_S = 1.0


@dataclass
class Verdict:
    """Counts a reader can distrust, and every broken promise with the job it is about."""

    counts: dict[str, int | float] = field(default_factory=dict)
    broken: list[tuple[str, UUID | None]] = field(default_factory=list)

    def check(self, holds: bool, promise: str, job_id: UUID | None = None) -> None:
        """Note a promise that does not hold."""
        if not holds:
            self.broken.append((promise, job_id))


# A claim bears the time at which its transaction began, which may be just before the end of a pause.
_DISPATCHED_IN_A_PAUSE = text(
    """
    SELECT events.job_id, events.at FROM pauses
    JOIN events ON events.type = 'job.queued' AND events.at > pauses.at
        AND events.at < coalesce(pauses.ended_at, now()) - interval '1 second'
    """
)


def check_all(
    database: Database,
    receipts: Receipts,
    planned: Planned,
    runs: Path,
    *,
    twin_url: str,
    oracle: Oracle,
    poison: list[str],
    leak_limit_s: float,
) -> Verdict:
    """Look at the database, at the cloud and at what the containers themselves wrote down."""
    verdict = Verdict()
    with database.begin() as tx:
        known = {job.spec.key: job for job in _all_jobs(tx)}
        for violation in invariants.violations(tx):
            verdict.check(False, str(violation), violation.job_id)
        total = tx.scalar(text("SELECT count(*) FROM jobs"))
    check_submits(verdict, receipts, known, int(total or 0))
    deaths = oracle.deaths()
    for wanted in receipts.wanted:
        if wanted.key in known:
            asked = Asked(wanted.exit_code, wanted.cancel, wanted.cancelled)
            check_job(verdict, known[wanted.key], asked, runs, deaths)
    for name in planned.names:
        check_schedule(verdict, database, name, planned, known.values(), runs, deaths)
    check_cloud(verdict, list(known.values()), instances(twin_url), oracle.ends(), leak_limit_s)
    check_bills(verdict, list(known.values()), oracle.bills())
    check_limit(verdict, database, known.values())
    check_pauses(verdict, database)
    check_dead_letters(verdict, dead_letters(database), poison)
    return verdict


def timeline(database: Database, job_id: UUID, seen: list[tuple[float, str]]) -> str:
    """One job's events in the order of time, among them what else was seen while it lasted."""
    with database.begin() as tx:
        history = events.of_job(tx, job_id)
    begin, end = history[0].at.timestamp() - 2, history[-1].at.timestamp() + 2
    lines = [
        (event.at.timestamp(), f"{event.type} #{event.attempt} by {event.actor} {event.detail}")
        for event in history
    ]
    lines += [(at, f"    {what}") for at, what in seen if begin <= at <= end]
    return "\n".join(f"  {at - begin:8.2f} s  {what}" for at, what in sorted(lines))


def check_submits(
    verdict: Verdict, receipts: Receipts, known: Mapping[str | None, Job], total: int
) -> None:
    """No submit that was answered, and no job message that was confirmed, is lost or two jobs."""
    acknowledged = receipts.acknowledged
    confirmed = [one for one in receipts.wanted if one.confirmed]
    lost = [one for one in acknowledged if one.key not in known]
    vanished = [one for one in confirmed if one.key not in known]
    other = [
        one for one in acknowledged if one.key in known and str(known[one.key].id) != one.job_id
    ]
    duplicates = total - len(known) + len(other)
    verdict.counts |= {
        "attempted": len(receipts.wanted),
        "acknowledged": len(acknowledged),
        "messages confirmed": len(confirmed),
        "of these left to the message": sum(one.left_alone for one in confirmed),
        "unanswered": receipts.unanswered,
        "lost": len(lost),
        "duplicates": duplicates,
    }
    verdict.check(not lost, f"{len(lost)} acknowledged submits are lost")
    verdict.check(
        not vanished,
        "confirmed job messages are lost: " + ", ".join(one.key for one in vanished),
    )
    verdict.check(duplicates == 0, f"{duplicates} submits became two jobs")
    ours = [known[one.key] for one in receipts.wanted if one.key in known]
    outcomes = Counter(str(job.outcome or job.state) for job in ours)
    verdict.counts |= {f"jobs {name}": count for name, count in sorted(outcomes.items())}


def check_job(
    verdict: Verdict, job: Job, asked: Asked, runs: Path, deaths: Deaths | None = None
) -> None:
    """It has ended, all of its attempts have, and as its containers say."""
    try:
        seen = read_runs(runs / str(job.spec.key))
    except ValueError as error:
        verdict.check(False, str(error), job.id)
        return
    _check_job(verdict, job, asked, seen, deaths)


def check_schedule(
    verdict: Verdict,
    database: Database,
    name: str,
    planned: Planned,
    known: Iterable[Job],
    runs: Path,
    deaths: Deaths,
) -> None:
    """Each of its fires is accounted for, and its jobs are like any other."""
    with database.begin() as tx:
        schedule = schedules.get(tx, name)
        fires = schedules.latest_fires(tx, schedule, limit=1000)
    try:
        seen = read_runs(runs / name)
    except ValueError as error:
        verdict.check(False, str(error))
        return
    jobs = {job.id: job for job in known if job.spec.labels.get(LABEL) == name}
    of_job: dict[UUID, list[Run]] = {}
    for run in seen:
        of_job.setdefault(run.job_id, []).append(run)
    strangers = sorted(of_job.keys() - jobs.keys())
    verdict.check(not strangers, f"{name}: containers of jobs that nobody knows: {strangers}")
    for job in jobs.values():
        # A pause may cancel it, an edit, and a later fire where the overlap rule says so.
        _check_job(verdict, job, Asked(0, cancel=True), of_job.get(job.id, ()), deaths)
    for promise in broken_fires(schedule, fires, jobs, of_job, by_hand=planned.runs):
        verdict.check(False, f"{name}: {promise}")
    for fire in fires:
        kind = f"fires {fire.outcome}"
        verdict.counts[kind] = verdict.counts.get(kind, 0) + fire.count


def _check_job(
    verdict: Verdict, job: Job, asked: Asked, seen: Sequence[Run], deaths: Deaths | None
) -> None:
    verdict.check(job.state is JobState.FINISHED, f"still {job.state}", job.id)
    for attempt in job.attempts:
        verdict.check(
            attempt.state is AttemptState.CLOSED, f"attempt still {attempt.state}", job.id
        )
    ends = sum(run.ended is not None for run in seen)
    for name, number in (("containers started", len(seen)), ("containers at their end", ends)):
        verdict.counts[name] = verdict.counts.get(name, 0) + number
    for promise in broken_promises(job, asked, seen, deaths):
        verdict.check(False, promise, job.id)


def check_cloud(
    verdict: Verdict,
    known: Sequence[Job],
    launched: Sequence[Mapping[str, Any]],
    ends: Mapping[str, End],
    leak_limit_s: float,
) -> None:
    """Every instance is one attempt's, gone, went soon after it, and not after the database said so.

    `launched` is EC2's listing, `ends` the twin's own word on when each instance was terminated.
    """
    tried = [(attempt, job) for job in known for attempt in job.attempts if attempt.instance_id]
    owners = {attempt.instance_id for attempt, _ in tried}
    live = [one["InstanceId"] for one in launched if one["State"]["Name"] != "terminated"]
    by_attempt = Counter(
        tuple(
            tag["Value"]
            for tag in one["Tags"]
            if tag["Key"] in ("atemporal:job", "atemporal:attempt")
        )
        # Those of a launch group are their attempts' by the records, before they are tagged.
        or (one["InstanceId"],)
        for one in launched
    )
    unknown = [one["InstanceId"] for one in launched if one["InstanceId"] not in owners]
    duplicates = sum(count - 1 for count in by_attempt.values())
    recorded, real = [0.0], [0.0]
    for attempt, job in tried:
        end = ends.get(attempt.instance_id or "")
        if attempt.exited_at and attempt.closed_at:
            recorded.append(_seconds(attempt.exited_at, attempt.closed_at))
        if attempt.exited_at and end:
            real.append(end.at - attempt.exited_at.timestamp())
        if attempt.closed_at and end:
            early = end.at - attempt.closed_at.timestamp()
            verdict.check(
                early <= CLOCKS_S,
                f"#{attempt.number} is recorded as closed {early:.1f} s before "
                f"{attempt.instance_id} ended",
                job.id,
            )
    verdict.counts |= {
        "launched": len(launched),
        "launched twice for an attempt": duplicates,
        "live now": len(live),
        "not in the database": len(unknown),
        "worst leak by the database, s": round(max(recorded), 1),
        "worst leak by the cloud, s": round(max(real), 1),
    }
    verdict.check(duplicates == 0, f"{duplicates} attempts have two instances")
    verdict.check(not live, f"{len(live)} instances leaked: {', '.join(live)}")
    verdict.check(
        not unknown, f"{len(unknown)} instances belong to no attempt: {', '.join(unknown)}"
    )
    worst = max(recorded + real)
    verdict.check(worst <= leak_limit_s, f"an instance outlived its attempt by {worst:.0f} s")


def check_bills(verdict: Verdict, known: Iterable[Job], bills: Mapping[str, Bill]) -> None:
    """What is booked is what the twin's own times come to, to the cent."""
    recorded = booked_of(known)
    verdict.counts |= {
        "instance-seconds billed": sum(one.seconds for one in bills.values()),
        "instance-seconds booked": sum(one.seconds for one in recorded.values()),
        "billed, USD": round(float(sum(one.cost for one in bills.values())), 6),
        "booked, USD": round(float(sum(one.cost for one in recorded.values())), 6),
        "instances whose times EC2 tells": sum(one.exact for one in bills.values()),
    }
    for promise in differences(recorded, bills):
        verdict.check(False, promise)


def check_limit(verdict: Verdict, database: Database, known: Iterable[Job]) -> None:
    """Never more jobs of the team were under way than its limit of that time allowed."""
    of_team = [job.id for job in known if job.spec.labels.get(TEAM_LABEL) == TEAM]
    with database.begin() as tx:
        history = [event for job_id in of_team for event in events.of_job(tx, job_id)]
        changes = concurrency_limits.changes(tx, name=LIMIT)
    found = list(dispatches(history, changes))
    for promise in exceeded(found):
        verdict.check(False, f"{LIMIT}: {promise}")
    limited = [one for one in found if one.most is not None]
    verdict.counts |= {
        "limit changed": len(changes),
        "dispatched under it": len(limited),
        "of these up to the limit": sum(one.many == one.most for one in limited),
    }


def check_pauses(verdict: Verdict, database: Database) -> None:
    """Nothing was dispatched while the installation was paused."""
    with database.begin() as tx:
        for job_id, at in tx.execute(_DISPATCHED_IN_A_PAUSE):
            verdict.check(False, f"dispatched at {at} while all was paused", job_id)


def check_dead_letters(verdict: Verdict, dead: Collection[str], poison: Collection[str]) -> None:
    """All that nobody could use is in the dead letters; both are the messages' ids."""
    missing = set(poison) - set(dead)
    verdict.counts |= {"poison": len(poison), "dead letters": len(dead)}
    verdict.check(not missing, f"poison not in the dead letters: {json.dumps(sorted(missing))}")


def dead_letters(database: Database) -> list[str]:
    """The ids of the messages whose letters are kept."""
    with database.begin() as tx:
        return [one or "" for one in tx.scalars(text("SELECT message_id FROM dead_letters"))]


def check_force(
    verdict: Verdict,
    faults: Mapping[str, int],
    kinds: Collection[str],
    *,
    seconds: float,
    jobs_asked: int,
    full: bool,
) -> None:
    """It was a chaos run; a `full` one had every kind of fault, its kills and all of its jobs."""
    verdict.check(sum(faults.values()) > 0, "no fault was injected: this shows nothing")
    if not full:
        return
    for kind in sorted(kinds):
        verdict.check(faults.get(kind, 0) > 0, f"no fault of kind {kind} was injected")
    kills = sum(number for kind, number in faults.items() if kind.startswith("kill -9 "))
    verdict.check(kills >= seconds / 3, f"{kills} kills in {seconds:.0f} s: one in three is due")
    reached = verdict.counts.get("of these up to the limit", 0)
    verdict.check(reached > 0, "the concurrency limit was never reached: it kept nobody back")
    for name in ("attempted", "acknowledged"):
        number = verdict.counts.get(name, 0)
        verdict.check(number == jobs_asked, f"{number} jobs {name}, {jobs_asked} were asked for")


def _seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()


def _all_jobs(tx: object) -> list[Job]:
    found: list[Job] = []
    after = None
    while True:
        page = listing.page(tx, limit=500, after=after)  # type: ignore[arg-type]
        found += page.jobs
        after = page.next
        if after is None:
            return found
