"""The types of the events that others may hear, and what each means.

Promise: every event that is recorded has one of these types, which is its routing key as well; the table
in `docs/messages.md` and the AsyncAPI document are made from this list. A type that is not here is a
mistake of ours: a test compares the list with what the store can write, and no test's database takes
another type.
"""

from __future__ import annotations

from collections.abc import Mapping

from atemporal.states import AttemptState, JobState, Outcome

JOB = "job"
ATTEMPT = "attempt"

_STATES = [state for state in JobState if state is not JobState.FINISHED]

EVENT_TYPES: Mapping[str, str] = {
    **{f"{JOB}.{state}": f"the job came into the state `{state}`" for state in _STATES},
    **{f"{JOB}.{JobState.FINISHED}.{one}": f"the job ended as `{one}`" for one in Outcome},
    f"{JOB}.rescheduled": "the job got another time (`detail.time`, `detail.before`)",
    **{f"{ATTEMPT}.{one}": f"the attempt came into the state `{one}`" for one in AttemptState},
    f"{ATTEMPT}.booted": "its machine is up and pulls the image (the boot callback)",
    f"{ATTEMPT}.started": "its container has started; `detail.skew_s` is how many seconds after "
    "its time, where it was launched ahead",
    f"{ATTEMPT}.instance": "the id of its instance became known late",
    f"{ATTEMPT}.blocked": "what an attempt without an instance is blocked on has changed "
    "(`detail.blocked_on`: `capacity`, `quota`, `answer`, ...)",
}
"""Each type with its meaning, in the order in which they are told."""


def matching(wanted: str) -> tuple[str, ...]:
    """The types that a whole one or its beginning means: `job.finished` means all that begin so.

    Raises:
        ValueError: there is none.
    """
    found = tuple(name for name in EVENT_TYPES if f"{name}.".startswith(f"{wanted}."))
    if not wanted or not found:
        raise ValueError(
            f"{wanted!r} is no type of an event; write one like job.running, or its beginning, like "
            "job.finished"
        )
    return found


def types_of(family: str) -> tuple[str, ...]:
    """The types of `job` or of `attempt`, without that and its dot: `scheduled`, `finished.lost`, ..."""
    return tuple(
        name.removeprefix(f"{family}.") for name in EVENT_TYPES if name.startswith(f"{family}.")
    )
