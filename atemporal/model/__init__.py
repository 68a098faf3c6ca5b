"""A job, its attempts, and what a machine reports: the nouns everything else is about.

Promise: all types are frozen: a change of state happens in the database, and the next read shows it.
What is in a `JobSpec` has been checked (see `job_spec`).
"""

from atemporal.model.attempt import Attempt, AttemptRef, Launch
from atemporal.model.exit_record import LOG_TAIL_LIMIT, ExitRecord, ReportedReason
from atemporal.model.job import Event, Job, LimitWait, PublicEvent
from atemporal.model.job_spec import (
    JobFields,
    JobSpec,
    describe,
    parse_spec,
    read_spec,
)
from atemporal.model.launch_group import LaunchGroup
from atemporal.model.machine import CapacityType, Machine
from atemporal.model.machine_clock import ClockState, MachineClock
from atemporal.model.pause import Pause

__all__ = [
    "LOG_TAIL_LIMIT",
    "Attempt",
    "AttemptRef",
    "CapacityType",
    "ClockState",
    "Event",
    "ExitRecord",
    "Job",
    "JobFields",
    "JobSpec",
    "Launch",
    "LaunchGroup",
    "LimitWait",
    "Machine",
    "MachineClock",
    "Pause",
    "PublicEvent",
    "ReportedReason",
    "describe",
    "parse_spec",
    "read_spec",
]
