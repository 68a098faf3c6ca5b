"""What the API sends, as types: the JSON's own names and values.

Instants are text as ISO 8601 in UTC. A newer API may send more names than these.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Instance(TypedDict):
    """One attempt, that is one instance."""

    id: int
    aws_id: str | None
    dns: str | None
    ip: str | None
    number: int
    state: str
    reason: str | None
    cause: str | None
    detail: str | None
    instance_id: str | None
    group_id: str | None
    claimed_instance_id: str | None
    public_dns: str | None
    public_ip: str | None
    instance_type: str
    capacity_type: str
    subnet_id: str | None
    image_id: str
    blocked_on: str | None
    end_code: str | None
    exit_code: int | None
    oom_killed: bool | None
    created_at: str
    launched_at: str | None
    booted_at: str | None
    running_at: str | None
    exited_at: str | None
    closed_at: str | None
    dispatch_at: str | None
    lead_s: float | None
    start_at: str | None
    ready_at: str | None
    started_at: str | None
    clock_synchronised: bool | None
    clock_offset_ms: int | None
    predicted_skew_s: float | None
    start_skew_s: float | None
    ahead_s: float | None


class InstanceDetail(Instance):
    """One attempt and the end of its output."""

    log_tail: str | None


class _Job(TypedDict):
    id: str
    image: str
    time: str
    state: str
    command: list[str] | None
    env: dict[str, str]
    payload: str
    ports: list[str]
    labels: dict[str, str]
    key: str | None
    machine: dict[str, Any]
    priority: int
    timeout_s: int
    backoff_s: int
    max_attempts: int
    infra_retries: int
    retry_on: list[int]
    no_retry_on: list[int]
    outcome: str | None
    reason: str | None
    fault: str | None
    attempt: int
    exit_code: int | None
    waiting_for: str | None
    waiting_since: str | None
    waiting_until: str | None
    waiting_on: str | None
    waiting_detail: str | None
    lead: int | str
    due_at: str
    dispatch_at: str | None
    lead_s: float | None
    read_at: str
    created_at: str
    updated_at: str
    finished_at: str | None


class Job(_Job):
    """A job, as it is in a list."""

    instances: list[Instance]


class JobDetail(_Job):
    """A job."""

    instances: list[InstanceDetail]
    log_tail: str | None


class JobPage(TypedDict):
    """Jobs in the order of their submit; `next` is the id to go on after.

    `total_estimated`: there are more than 10,000, and `total` is about how many.
    """

    total: int
    total_estimated: bool
    jobs: list[Job]
    next: str | None


class Event(TypedDict):
    """One transition of a job or an attempt."""

    type: str
    event_id: int
    job_id: str
    attempt: int
    at: str
    actor: str
    detail: dict[str, Any]


class NextFire(TypedDict):
    """A fire that comes: in UTC, and as its zone's clock shows it; `job_id` if its job is there."""

    time: str
    local: str
    job_id: str | None


class PastFire(TypedDict):
    """What became of a fire, or of `count` fires from `time` to `until`."""

    time: str
    local: str
    outcome: str
    reason: str | None
    job_id: str | None
    job_state: str | None
    count: int
    until: str | None
    decided_at: str


class Schedule(TypedDict):
    """A recurring schedule, as it is in a list."""

    name: str
    cron: str
    zone: str
    job: dict[str, Any]
    catch_up: str
    window_s: int
    overlap: str
    start_deadline_s: int | None
    version: int
    paused_at: str | None
    next_fire_at: str | None
    next_fire_local: str | None
    rules_version: str
    problem: str | None
    created_at: str
    updated_at: str
    read_at: str


class ScheduleDetail(Schedule):
    """A recurring schedule, its next fires and its latest."""

    next_fires: list[NextFire]
    fires: list[PastFire]


class SchedulePage(TypedDict):
    """Schedules by name; `next` is the name to go on after."""

    schedules: list[Schedule]
    next: str | None


class LineResult(TypedDict):
    """What became of one of many jobs: `accepted`, `duplicate` or `rejected`.

    `line` is its number from 1 on. `id` is absent where no job has to do with it, `time` where it was
    rejected, `errors` (by field) where it was not.
    """

    line: int
    status: str
    id: NotRequired[str]
    time: NotRequired[str]
    errors: NotRequired[dict[str, str]]
