"""The states of a job and of an attempt, the transitions between them, and what each ending means.

Promise: a transition that is not in a table below does not happen; the database repeats the tables as
CHECK constraints and guarded updates. `Reason` is the one place that says for every way an attempt
can end whose fault it was, which outcome it gives and whether another attempt is due.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. `finished` is final but for an operator's `retry`."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    WARMING = "warming"
    RUNNING = "running"
    FINISHED = "finished"


class AttemptState(StrEnum):
    """Where one attempt, that is one instance, stands. `closed`: EC2 confirmed that it is gone.

    `ready`: its machine has created the container and holds it until its time.
    """

    LAUNCHING = "launching"
    WARMING = "warming"
    READY = "ready"
    RUNNING = "running"
    EXITED = "exited"
    CLOSED = "closed"


class Outcome(StrEnum):
    """How a finished job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


class Fault(StrEnum):
    """Who made an attempt end, which decides the budget another attempt is taken from."""

    NONE = "none"
    PROGRAM = "program"
    INFRASTRUCTURE = "infrastructure"
    OPERATOR = "operator"


class BlockedReason(StrEnum):
    """What keeps an attempt from getting its instance, gravest first.

    Our own limit on calls is not among them: it is moments away.
    """

    AUTHORIZATION = "authorization"
    """EC2 refuses this process: altogether (credentials, policy, account), or what the job wants.
    Or its settings name an image that is not known to be of the OS family."""
    KEY = "key"
    """Its callback key has not reached this launcher yet."""
    QUOTA = "quota"
    """The account's limit is reached."""
    CAPACITY = "capacity"
    """No offering has room."""
    INTERRUPTIONS = "interruptions"
    """Only spot will do, and its pools interrupt again and again."""
    ANSWER = "answer"
    """A call may have launched it: the identical call is repeated until that is sure."""
    THROTTLE = "throttle"
    """EC2 refused the call as one too many."""

    @property
    def gravity(self) -> int:
        """Its rank among all reasons: 0 is the gravest."""
        return list(BlockedReason).index(self)


class Reason(StrEnum):
    """Why an attempt ended; `outcome` and `fault` follow from it."""

    COMPLETED = "completed"
    EXIT_NONZERO = "exit_nonzero"
    SIGNALLED = "signalled"
    OUT_OF_MEMORY = "out_of_memory"
    START_FAILED = "start_failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    UNREPORTED = "unreported"
    LAUNCH_REFUSED = "launch_refused"
    QUEUE_DEADLINE = "queue_deadline"
    LAUNCH_DEADLINE = "launch_deadline"
    BOOT_DEADLINE = "boot_deadline"
    PULL_DEADLINE = "pull_deadline"
    PULL_FAILED = "pull_failed"
    IMAGE_REFUSED = "image_refused"
    CREATE_FAILED = "create_failed"
    SPOT_INTERRUPTED = "spot_interrupted"
    INSTANCE_LOST = "instance_lost"
    NO_CAPACITY = "no_capacity"
    CLAIM_DEADLINE = "claim_deadline"
    RESCHEDULED = "rescheduled"
    START_DEADLINE = "start_deadline"
    MAX_COST = "max_cost"

    @property
    def outcome(self) -> Outcome:
        """The outcome of a job whose last attempt ended so."""
        return _MEANING[self][0]

    @property
    def fault(self) -> Fault:
        """Whose fault the ending was."""
        return _MEANING[self][1]

    @property
    def costs(self) -> bool:
        """Whether the ending is taken from a budget of attempts."""
        return self not in (Reason.NO_CAPACITY, Reason.RESCHEDULED)

    @property
    def retryable(self) -> bool:
        """Whether another attempt could end better."""
        return _MEANING[self][2]

    @property
    def ends(self) -> tuple[AttemptState, ...]:
        """The states an attempt can be in when it ends so."""
        return _ENDS.get(self, LIVE_ATTEMPT)


DOCKER_REFUSED = frozenset(
    {Reason.PULL_FAILED, Reason.IMAGE_REFUSED, Reason.CREATE_FAILED, Reason.START_FAILED}
)
"""An exit code with one of these is docker's, not the program's; docker's words are in the log."""

PROGRAM_RAN = frozenset(
    {
        *(Reason.COMPLETED, Reason.EXIT_NONZERO, Reason.SIGNALLED, Reason.OUT_OF_MEMORY),
        *(Reason.TIMED_OUT, Reason.UNREPORTED),
    }
)
"""Who ends for one of these has started its container."""

_MEANING: dict[Reason, tuple[Outcome, Fault, bool]] = {
    Reason.COMPLETED: (Outcome.SUCCEEDED, Fault.NONE, False),
    Reason.EXIT_NONZERO: (Outcome.FAILED, Fault.PROGRAM, True),
    Reason.SIGNALLED: (Outcome.FAILED, Fault.PROGRAM, True),
    Reason.OUT_OF_MEMORY: (Outcome.FAILED, Fault.PROGRAM, True),
    Reason.START_FAILED: (Outcome.FAILED, Fault.PROGRAM, True),
    Reason.TIMED_OUT: (Outcome.TIMED_OUT, Fault.PROGRAM, True),
    Reason.CANCELLED: (Outcome.CANCELLED, Fault.OPERATOR, False),
    Reason.UNREPORTED: (Outcome.LOST, Fault.PROGRAM, False),
    Reason.LAUNCH_REFUSED: (Outcome.FAILED, Fault.INFRASTRUCTURE, False),
    Reason.QUEUE_DEADLINE: (Outcome.FAILED, Fault.INFRASTRUCTURE, False),
    Reason.LAUNCH_DEADLINE: (Outcome.FAILED, Fault.INFRASTRUCTURE, True),
    Reason.BOOT_DEADLINE: (Outcome.FAILED, Fault.INFRASTRUCTURE, True),
    Reason.PULL_DEADLINE: (Outcome.FAILED, Fault.INFRASTRUCTURE, True),
    Reason.PULL_FAILED: (Outcome.FAILED, Fault.INFRASTRUCTURE, True),
    Reason.IMAGE_REFUSED: (Outcome.FAILED, Fault.PROGRAM, False),
    Reason.CREATE_FAILED: (Outcome.FAILED, Fault.PROGRAM, True),
    Reason.SPOT_INTERRUPTED: (Outcome.LOST, Fault.INFRASTRUCTURE, True),
    Reason.INSTANCE_LOST: (Outcome.LOST, Fault.INFRASTRUCTURE, True),
    Reason.NO_CAPACITY: (Outcome.FAILED, Fault.INFRASTRUCTURE, True),
    Reason.CLAIM_DEADLINE: (Outcome.FAILED, Fault.INFRASTRUCTURE, True),
    # Only the attempt ends so: its job is scheduled for another time.
    Reason.RESCHEDULED: (Outcome.CANCELLED, Fault.OPERATOR, True),
    # What kept it was ours or EC2's, or a limit; that it ends is what its submitter asked for.
    Reason.START_DEADLINE: (Outcome.CANCELLED, Fault.INFRASTRUCTURE, False),
    # Like a time limit: it did not get done with what it was given.
    Reason.MAX_COST: (Outcome.FAILED, Fault.PROGRAM, False),
}

# Seconds: the first wait for room, and the longest.
_SCARCITY_S = (5, 300)

J, A = JobState, AttemptState

JOB_TRANSITIONS: dict[tuple[JobState, JobState], str] = {
    (J.SCHEDULED, J.QUEUED): "due: the scheduler emits it",
    (J.SCHEDULED, J.FINISHED): "cancelled before it was due",
    (J.QUEUED, J.SCHEDULED): "an operator gives it another time, or pauses the installation",
    (J.QUEUED, J.WARMING): "the launcher commits an attempt",
    (J.QUEUED, J.FINISHED): "cancelled while it waited",
    (J.WARMING, J.RUNNING): "the machine claims it",
    (J.WARMING, J.SCHEDULED): "the attempt ended, another is due or has another time",
    (J.WARMING, J.FINISHED): "the attempt ended",
    (J.RUNNING, J.SCHEDULED): "the attempt ended, another is due",
    (J.RUNNING, J.FINISHED): "the attempt ended",
    (J.FINISHED, J.SCHEDULED): "an operator retries it",
}

ATTEMPT_TRANSITIONS: dict[tuple[AttemptState, AttemptState], str] = {
    (A.LAUNCHING, A.WARMING): "EC2 gave an instance",
    (A.LAUNCHING, A.READY): "ready before the launcher wrote the instance down",
    (A.LAUNCHING, A.RUNNING): "claimed before the launcher wrote the instance down",
    (A.LAUNCHING, A.EXITED): "refused, late or cancelled",
    (A.WARMING, A.READY): "image pulled, container created: it holds",
    (A.WARMING, A.RUNNING): "claimed",
    (A.WARMING, A.EXITED): "failed, late or cancelled",
    (A.READY, A.RUNNING): "claimed, moments before its time",
    (A.READY, A.EXITED): "failed, late or cancelled",
    (A.RUNNING, A.EXITED): "ended, late or cancelled",
    (A.EXITED, A.CLOSED): "EC2 confirms that the instance is gone",
}

LIVE_ATTEMPT = (A.LAUNCHING, A.WARMING, A.READY, A.RUNNING)
CLAIMABLE_ATTEMPT = (A.LAUNCHING, A.WARMING, A.READY)

_ENDS: dict[Reason, tuple[AttemptState, ...]] = {
    Reason.LAUNCH_REFUSED: (A.LAUNCHING,),
    Reason.LAUNCH_DEADLINE: (A.LAUNCHING,),
    Reason.BOOT_DEADLINE: CLAIMABLE_ATTEMPT,
    Reason.PULL_DEADLINE: CLAIMABLE_ATTEMPT,
    Reason.NO_CAPACITY: CLAIMABLE_ATTEMPT,
    Reason.CLAIM_DEADLINE: (A.READY,),
    Reason.RESCHEDULED: CLAIMABLE_ATTEMPT,
    Reason.START_DEADLINE: CLAIMABLE_ATTEMPT,
}


def job_states_before(state: JobState) -> tuple[JobState, ...]:
    """The states a job may come from into `state`: the guard of that update."""
    return tuple(before for before, after in JOB_TRANSITIONS if after == state)


def attempt_states_before(state: AttemptState) -> tuple[AttemptState, ...]:
    """The states an attempt may come from into `state`: the guard of that update."""
    return tuple(before for before, after in ATTEMPT_TRANSITIONS if after == state)


@dataclass(frozen=True)
class Finish:
    """The job is over."""

    outcome: Outcome


@dataclass(frozen=True)
class Again:
    """Another attempt is due in `delay_s` seconds."""

    delay_s: int


def verdict(
    reason: Reason,
    *,
    program_failures: int,
    infra_failures: int,
    max_attempts: int,
    infra_retries: int,
    backoff_s: int,
    exit_code: int | None = None,
    retry_on: Collection[int] = (),
    no_retry_on: Collection[int] = (),
) -> Finish | Again:
    """Decide what follows an attempt that ended for `reason`.

    The counts include this ending. A program may fail `max_attempts` times; the infrastructure has
    a budget of its own, so that a machine that never booted costs the program no attempt. Where
    `retry_on` names exit codes no other is tried again; one in `no_retry_on` never is. The
    delay doubles with each failure of the same kind, from `backoff_s` up to an hour.
    """
    if not reason.retryable:
        return Finish(reason.outcome)
    if reason.fault is Fault.PROGRAM and (
        (retry_on and exit_code not in retry_on) or exit_code in no_retry_on
    ):
        return Finish(reason.outcome)
    if reason.fault is Fault.INFRASTRUCTURE:
        failures, allowed = infra_failures, infra_retries + 1
    else:
        failures, allowed = program_failures, max_attempts
    if failures >= allowed:
        return Finish(reason.outcome)
    return Again(min(backoff_s * 2 ** min(failures - 1, 20), 3600))


def verdict_of_scarcity(*, in_a_row: int, since_s: float, patience_s: float) -> Finish | Again:
    """Decide what follows an attempt whose instance EC2 took on and then had no room for.

    It costs no budget: time bounds it. `in_a_row` such attempts, this one included, the first begun
    `since_s` seconds ago, may take `patience_s` together. The delay doubles up to five minutes.
    """
    if since_s >= patience_s:
        return Finish(Reason.NO_CAPACITY.outcome)
    return Again(min(_SCARCITY_S[0] * 2 ** min(in_a_row - 1, 20), _SCARCITY_S[1]))


def diagram() -> str:
    """The two state machines as Mermaid text; the documentation's diagrams are this output."""
    lines = ["stateDiagram-v2"]
    lines += [f"    {a.value} --> {b.value}: {why}" for (a, b), why in JOB_TRANSITIONS.items()]
    lines += ["", "stateDiagram-v2"]
    lines += [f"    {a.value} --> {b.value}: {why}" for (a, b), why in ATTEMPT_TRANSITIONS.items()]
    return "\n".join(lines)
