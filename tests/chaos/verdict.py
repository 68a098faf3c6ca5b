"""After the storm and the calm: is everything that was promised true?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pika
from sqlalchemy import text

from atemporal.model import Job
from atemporal.states import AttemptState, JobState, Outcome
from atemporal.store import events, invariants, jobs
from atemporal.store.database import Database
from tests.chaos.clients import Ledger
from tests.e2e.system import instances


@dataclass
class Verdict:
    """Counts a reader can distrust, and every broken promise with the job it is about."""

    counts: dict[str, int | float] = field(default_factory=dict)
    broken: list[tuple[str, UUID | None]] = field(default_factory=list)

    def check(self, holds: bool, promise: str, job_id: UUID | None = None) -> None:
        """Note a promise that does not hold."""
        if not holds:
            self.broken.append((promise, job_id))


def judge(
    database: Database,
    ledger: Ledger,
    runs: Path,
    *,
    twin_url: str,
    broker_url: str,
    poison: list[str],
    overstay_limit_s: float,
) -> Verdict:
    """Look at the books, the cloud, the broker and at what the containers themselves wrote down."""
    verdict = Verdict()
    with database.begin() as tx:
        known = {job.spec.key: job for job in _all_jobs(tx)}
        for violation in invariants.violations(tx):
            verdict.check(False, str(violation), violation.job_id)
        total = tx.scalar(text("SELECT count(*) FROM jobs"))
    _judge_submits(verdict, ledger, known, int(total or 0))
    for wanted in ledger.wanted:
        if wanted.key in known:
            _judge_job(verdict, known[wanted.key], wanted.exit_code, wanted.cancelled, runs)
    _judge_cloud(verdict, list(known.values()), twin_url, overstay_limit_s)
    _judge_dead_letters(verdict, broker_url, poison)
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


def _all_jobs(tx: object) -> list[Job]:
    found: list[Job] = []
    after = None
    while True:
        page = jobs.listing(tx, limit=500, after=after)  # type: ignore[arg-type]
        found += page.jobs
        after = page.next
        if after is None:
            return found


def _judge_submits(
    verdict: Verdict, ledger: Ledger, known: dict[str | None, Job], total: int
) -> None:
    acknowledged = ledger.acknowledged
    lost = [one for one in acknowledged if one.key not in known]
    other = [
        one for one in acknowledged if one.key in known and str(known[one.key].id) != one.job_id
    ]
    doubled = total - len(known) + len(other)
    verdict.counts |= {
        "attempted": len(ledger.wanted),
        "acknowledged": len(acknowledged),
        "unsure answers": ledger.unsure,
        "lost": len(lost),
        "doubled": doubled,
    }
    verdict.check(not lost, f"{len(lost)} acknowledged submits are lost")
    verdict.check(doubled == 0, f"{doubled} submits became two jobs")
    outcomes = Counter(str(job.outcome or job.state) for job in known.values())
    verdict.counts |= {f"jobs {name}": count for name, count in sorted(outcomes.items())}


def _judge_job(verdict: Verdict, job: Job, exit_code: int, cancelled: bool, runs: Path) -> None:
    verdict.check(job.state is JobState.FINISHED, f"still {job.state}", job.id)
    for attempt in job.attempts:
        verdict.check(
            attempt.state is AttemptState.CLOSED, f"attempt still {attempt.state}", job.id
        )
    path = runs / str(job.spec.key)
    lines = path.read_text().split() if path.exists() else []
    claims = sum(attempt.running_at is not None for attempt in job.attempts)
    started = lines.count("start")
    verdict.counts["containers started"] = verdict.counts.get("containers started", 0) + started
    verdict.check(started <= claims, f"started {started} times for {claims} claims", job.id)
    if cancelled:
        verdict.check(job.outcome is Outcome.CANCELLED, f"cancelled, and {job.outcome}", job.id)
    elif job.outcome in (Outcome.SUCCEEDED, Outcome.FAILED) and job.exit_code is not None:
        verdict.check(job.exit_code in (exit_code, 143, 137), f"exit {job.exit_code}", job.id)
        if job.outcome is Outcome.SUCCEEDED:
            verdict.check("end" in lines, "succeeded without having run", job.id)


def _judge_cloud(
    verdict: Verdict, known: list[Job], twin_url: str, overstay_limit_s: float
) -> None:
    launched = instances(twin_url)
    owners = {attempt.instance_id: job.id for job in known for attempt in job.attempts}
    live = [one for one in launched if one["State"]["Name"] != "terminated"]
    by_attempt = Counter(
        tuple(
            tag["Value"]
            for tag in one["Tags"]
            if tag["Key"] in ("atemporal:job", "atemporal:attempt")
        )
        for one in launched
    )
    unknown = [one for one in launched if one["InstanceId"] not in owners]
    overstays = [
        (attempt.closed_at - attempt.exited_at).total_seconds()
        for job in known
        for attempt in job.attempts
        if attempt.closed_at and attempt.exited_at and attempt.instance_id
    ]
    doubled = sum(count - 1 for count in by_attempt.values())
    verdict.counts |= {
        "launched": len(launched),
        "launched twice for an attempt": doubled,
        "live now": len(live),
        "not in the books": len(unknown),
        "worst overstay, s": round(max(overstays, default=0.0), 1),
    }
    verdict.check(doubled == 0, f"{doubled} attempts have two instances")
    verdict.check(not live, f"{len(live)} instances leaked")
    verdict.check(not unknown, f"{len(unknown)} instances belong to no attempt")
    verdict.check(
        max(overstays, default=0.0) <= overstay_limit_s,
        f"an instance outlived its attempt by {max(overstays, default=0.0):.0f} s",
    )


def _judge_dead_letters(verdict: Verdict, broker_url: str, poison: list[str]) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    dead: list[str] = []
    while True:
        method, properties, _ = channel.basic_get("atemporal.dead", auto_ack=True)
        if method is None or properties is None:
            break
        dead.append(properties.message_id or "")
    connection.close()
    missing = set(poison) - set(dead)
    verdict.counts |= {"poison": len(poison), "dead letters": len(dead)}
    verdict.check(not missing, f"poison not in the dead letters: {json.dumps(sorted(missing))}")
