"""How each container ended, by its own word, against how the database says that it ended.

Promise: pure but for reading the containers' files. A container writes down when it starts and when
it comes to its end, and its working directory, which names the instance and the attempt. What came
to its end has to be recorded as just that, with its exit code: the machine writes its record on its
console before anything else, so lost callbacks, dead networks and hanging kernels are no excuse.
Only a cancel that was asked for is one, or that EC2 itself ended the machine before it could have
written. A container that did not come to its end needs the same excuses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from atemporal.model import Attempt, Job
from atemporal.states import Fault, Outcome, Reason

SAY = 'echo "{what} $(date +%s.%N) $PWD" >> {path}'
"""What a container's shell does to write down that it starts or ends."""

# Docker's stop: TERM, and KILL for who does not listen.
STOPPED = (143, 137)
# How long a machine under load may take from its container's end to the record on its console.
REPORT_WITHIN_S = 10.0
OWN_ENDINGS = (Reason.COMPLETED, Reason.EXIT_NONZERO)
LOSSES = (Reason.INSTANCE_LOST, Reason.SPOT_INTERRUPTED)
_LINE = re.compile(
    r"(start|end) ([0-9.]+) \S*/(i-[0-9a-f]+)/root/\S*/atemporal-([0-9a-f-]{36})\.([0-9]+)/scratch"
)


@dataclass(frozen=True)
class Run:
    """One container's life by its own word, in seconds since the epoch; `ended` None: cut short."""

    job_id: UUID
    number: int
    instance_id: str
    started: float
    ended: float | None = None


@dataclass(frozen=True)
class Asked:
    """What the submitter knows: its program's exit code, whether it asked to cancel and was told so."""

    exit_code: int
    cancel: bool = False
    cancelled: bool = False


Deaths = Mapping[str, Sequence[float]]
"""When EC2 itself put an end to instances (seconds since the epoch), by their ids."""


def read_runs(path: Path) -> list[Run]:
    """Read what the containers of one job wrote.

    Raises:
        ValueError: somebody wrote something else, or an end without a start.
    """
    runs: list[Run] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{path} has the line {line!r}")
        run = Run(UUID(match[4]), int(match[5]), match[3], float(match[2]))
        if match[1] == "start":
            runs.append(run)
            continue
        for place, begun in enumerate(runs):
            if begun.ended is None and replace(begun, started=run.started) == run:
                runs[place] = replace(begun, ended=run.started)
                break
        else:
            raise ValueError(f"{path} has an end without a start: {line!r}")
    return runs


def broken_promises(
    job: Job, asked: Asked, runs: Sequence[Run], deaths: Deaths | None = None
) -> Iterator[str]:
    """Say what is wrong with a finished job's attempts and outcome."""
    tries = {attempt.number: attempt for attempt in job.attempts}
    for run in runs:
        attempt = tries.get(run.number)
        if run.job_id != job.id or attempt is None:
            yield f"{run.job_id}.{run.number} ran for it, which is none of its attempts"
            continue
        if attempt.running_at is None:
            yield f"#{run.number} started without a claim"
        if run.started < job.run_at.timestamp():
            early_s = job.run_at.timestamp() - run.started
            yield f"#{run.number} started {early_s:.3f} s before its time"
        if attempt.instance_id != run.instance_id:
            yield f"#{run.number} ran on {run.instance_id}, recorded is {attempt.instance_id}"
    for number, times in Counter(run.number for run in runs).items():
        if times > 1:
            yield f"#{number} started {times} times"
    by_number = {run.number: run for run in runs}
    for attempt in job.attempts:
        killed = (deaths or {}).get(attempt.instance_id or "", ())
        yield from _attempt(attempt, asked, by_number.get(attempt.number), killed)
    yield from _outcome(job, asked)


def _attempt(
    attempt: Attempt, asked: Asked, run: Run | None, killed: Sequence[float]
) -> Iterator[str]:
    reason, code, number = attempt.reason, attempt.exit_code, attempt.number
    if reason is None:
        return  # it has not ended, and that is broken enough
    if run is not None and run.ended is not None:
        last = run.ended + REPORT_WITHIN_S
        own = Reason.COMPLETED if asked.exit_code == 0 else Reason.EXIT_NONZERO
        if code != asked.exit_code and (code is not None or reason is own):
            yield f"#{number} ended with {asked.exit_code}, recorded is exit {code} ({reason})"
        elif reason is not own and not _excused(
            reason, asked, [at for at in killed if at <= last]
        ):
            yield f"#{number} ran to its end with {asked.exit_code}, recorded is {reason}"
        return
    if run is None and attempt.running_at is None and reason not in OWN_ENDINGS:
        # Never claimed: launches and boots fail in many ways, none of them the program's.
        if code is not None or reason.fault is Fault.PROGRAM:
            yield f"#{number} never started, recorded is {reason} and exit {code}"
        if reason in LOSSES and not killed:
            yield f"#{number} is recorded as {reason}, and nobody had ended its instance"
        return
    how = "never started" if run is None else "was cut short"
    if code not in (None, *STOPPED):
        yield f"#{number} {how}, recorded is exit {code}"
    if not _excused(reason, asked, killed):
        yield f"#{number} {how}, recorded is {reason}, and nothing is known that explains it"


def _excused(reason: Reason, asked: Asked, killed: Sequence[float]) -> bool:
    if reason is Reason.CANCELLED:
        return asked.cancel
    return reason in LOSSES and bool(killed)


def _outcome(job: Job, asked: Asked) -> Iterator[str]:
    if asked.cancelled and job.outcome is not Outcome.CANCELLED:
        yield f"cancelled, and {job.outcome}"
    if job.outcome is None:
        return
    if job.outcome is Outcome.CANCELLED:
        if not asked.cancel:
            yield "cancelled, and nobody asked for it"
        return
    own = [attempt for attempt in job.attempts if attempt.reason in OWN_ENDINGS]
    due = 1 if asked.exit_code == 0 else job.spec.max_attempts
    if len(own) > due:
        yield f"its program ended {len(own)} times, and {due} were due"
    expected = Outcome.SUCCEEDED if asked.exit_code == 0 else Outcome.FAILED
    spent = sum(
        attempt.reason is not None and attempt.reason.fault is Fault.INFRASTRUCTURE
        for attempt in job.attempts
    )
    if spent > job.spec.infra_retries:
        return
    if job.outcome is not expected or len(own) != due:
        yield f"{job.outcome} after {len(own)} ends of its program with {asked.exit_code}"
