"""Three jobs that show what the system does, and a check whether it did.

Promise: the demo is over when every job has finished and every instance is gone, or when its time is
up; `surprises` is empty only if each job ended as planned, one instance was launched for each, and
none is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

from atemporal.cloud import Cloud
from atemporal.local.stack import Stack
from atemporal.model import Event, Job, JobSpec, parse_spec
from atemporal.plural import counted
from atemporal.states import AttemptState, JobState, Outcome
from atemporal.stop_request import StopRequest
from atemporal.store import events, jobs

LETTER = 'Dear machine,\nyou are brand new, and gone when this is read.\n  "Yours", $100 %'
AHEAD_S = 5
_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Part:
    """One job of the demo and its planned end."""

    name: str
    summary: str
    command: tuple[str, ...]
    exit_code: int
    outcome: Outcome
    env: tuple[tuple[str, str], ...] = ()
    delay_s: int = 0


PARTS = (
    Part(
        "environment",
        "prints its environment, with a value of three lines",
        ("env",),
        0,
        Outcome.SUCCEEDED,
        env=(("LETTER", LETTER),),
    ),
    Part(
        "failure",
        "exits with 7",
        ("sh", "-c", "echo 'this job fails on purpose'; exit 7"),
        7,
        Outcome.FAILED,
    ),
    Part(
        "later",
        f"is scheduled {AHEAD_S} seconds ahead",
        ("sh", "-c", "echo 'this job was not early'"),
        0,
        Outcome.SUCCEEDED,
        delay_s=AHEAD_S,
    ),
)


@dataclass(frozen=True)
class Look:
    """The jobs at one moment, in the order of `PARTS`, and what has happened since the last look."""

    jobs: Sequence[Job]
    news: Sequence[tuple[Part, Event]]


@dataclass(frozen=True)
class Result:
    """How it ended; `surprises` says in sentences what did not go as planned."""

    jobs: Sequence[Job]
    launched: int
    left: int
    surprises: Sequence[str]


class Demo:
    """The jobs, from their submit on."""

    def __init__(self, stack: Stack, image: str) -> None:
        """Submit them."""
        self._stack = stack
        with stack.database.begin() as tx:
            specs = [_spec(part, image) for part in PARTS]
            self._ids = [one.job_id for one in jobs.submit(tx, specs, actor="demo")]
        self._reported: set[int] = set()

    def looks(self, stop: StopRequest) -> Iterator[Look]:
        """Look again and again until it is over, its time is up, or `stop` is set."""
        until = monotonic() + _WITHIN_S
        while True:
            view = self._view()
            yield view
            over = all(_is_over(job) for job in view.jobs)
            if over or monotonic() >= until or stop.wait(_LOOK_EVERY_S):
                return

    def result(self) -> Result:
        """Check, by the records and by what EC2 shows."""
        found = self._view().jobs
        with Cloud(self._stack.settings) as cloud:
            instances = cloud.all()
        left = sum(not instance.gone for instance in instances)
        surprises = [
            failure
            for part, job in zip(PARTS, found, strict=True)
            for failure in _broken(part, job)
        ]
        if len(instances) != len(PARTS):
            surprises.append(
                f"{counted(len(instances), 'instance')} launched for {len(PARTS)} jobs"
            )
        if left:
            surprises.append(f"left behind: {counted(left, 'instance')}")
        return Result(found, len(instances), left, surprises)

    def _view(self) -> Look:
        news: list[tuple[Part, Event]] = []
        with self._stack.database.begin() as tx:
            found = [jobs.get(tx, job_id) for job_id in self._ids]
            for part, job_id in zip(PARTS, self._ids, strict=True):
                happened = events.of_job(tx, job_id)
                news += [(part, event) for event in happened if event.id not in self._reported]
        self._reported.update(event.id for _, event in news)
        return Look(found, sorted(news, key=lambda item: item[1].id))


def _spec(part: Part, image: str) -> JobSpec:
    fields = {
        "image": image,
        "command": part.command,
        "env": dict(part.env),
        "delay_s": part.delay_s,
        "timeout_s": 60,
        "ports": (),
        "labels": {"demo": part.name},
    }
    return parse_spec(fields)


def _is_over(job: Job) -> bool:
    return job.state is JobState.FINISHED and all(
        attempt.state is AttemptState.CLOSED for attempt in job.attempts
    )


def _broken(part: Part, job: Job) -> Iterator[str]:
    if (job.outcome, job.exit_code) != (part.outcome, part.exit_code):
        why = job.attempts[-1].detail if job.attempts else None
        yield (
            f"{part.name}: {job.outcome or job.state} with exit code {job.exit_code}, not "
            f"{part.outcome} with {part.exit_code}" + (f" ({why})" if why else "")
        )
        return
    log = job.attempts[-1].log_tail or b""
    for name, value in part.env:
        if f"{name}={value}".encode() not in log:
            yield f"{part.name}: the value of {name} did not arrive as it was sent"
    started_at = job.attempts[-1].started_at
    if started_at is None or started_at < job.run_at:
        yield f"{part.name}: it ran before its time"
