"""How an instance is ended: why, and whether its operating system is waited for.

Promise: pure. Wherever a container may run, the operating system is told to stop, and docker with it:
of a job that is cancelled while it runs the program gets its signal. Where its machine has said that the
container ended, or none was ever started, there is nothing to wait for.
"""

from __future__ import annotations

from enum import StrEnum

from atemporal.model import Attempt
from atemporal.states import AttemptState, Reason

ENDING = "shutting-down"
"""EC2's word for an instance whose end has begun."""

# A program can report the end of its own attempt and go on, so that is not among them.
_REPORTED = frozenset(
    {
        *(Reason.COMPLETED, Reason.EXIT_NONZERO, Reason.SIGNALLED, Reason.OUT_OF_MEMORY),
        *(Reason.START_FAILED, Reason.PULL_FAILED, Reason.IMAGE_REFUSED, Reason.CREATE_FAILED),
    }
)


class TerminationCause(StrEnum):
    """Why an instance is ended."""

    ATTEMPT_ENDED = "attempt_ended"
    DUPLICATE = "duplicate"
    ORPHANED = "orphaned"
    OVERDUE = "overdue"
    STOPPED = "stopped"


def nothing_runs(attempt: Attempt) -> bool:
    """Whether no container runs for an ended attempt: it never started one, or its machine said so."""
    if attempt.running_at is None:
        return attempt.state in (AttemptState.EXITED, AttemptState.CLOSED)
    by_its_machine = attempt.reason is Reason.TIMED_OUT and attempt.exit_code is not None
    return attempt.reason in _REPORTED or by_its_machine


def may_write(attempt: Attempt) -> bool:
    """Whether more of its container's output may come: it runs, or its machine has yet to report."""
    if attempt.state is AttemptState.EXITED:
        return attempt.log_tail is None and not nothing_runs(attempt)
    return attempt.state is AttemptState.RUNNING
