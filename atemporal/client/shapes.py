"""What the API sends, as types: the JSON's own names and values.

Instants are text as ISO 8601 in UTC. A newer API may send more names than these.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from atemporal.client.asked import Asked


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
    tags: dict[str, str]
    blocked_on: str | None
    end_code: str | None
    exit_code: int | None
    oom_killed: bool | None
    log_bytes: int | None
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
    billed_from: str | None
    billed_until: str | None
    billed_s: int | None
    price_per_hour: str | None
    cost: str | None


class InstanceDetail(Instance):
    """One attempt and the end of its output."""

    log_tail: str | None


class LimitWait(TypedDict):
    """What a due job waits for: room under a concurrency limit, behind `before` others."""

    limit: str
    used: int
    most: int | None
    needs: int
    vcpus_of: str | None
    before: int
    before_more: bool


class _Job(Asked):
    id: str
    state: str
    outcome: str | None
    reason: str | None
    fault: str | None
    attempt: int
    exit_code: int | None
    cost: str | None
    waiting_for: str | None
    waiting_since: str | None
    waiting_until: str | None
    waiting_on: str | None
    waiting_detail: str | None
    waiting_limit: LimitWait | None
    due_at: str
    dispatch_at: str | None
    lead_s: float | None
    start_by: str | None
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


class InPhase(TypedDict):
    """How much is in one phase, and for how long the oldest, in seconds."""

    phase: str
    waiting_for: str
    count: int
    oldest_s: float


class Overview(TypedDict):
    """The whole at a glance: phases, and a few jobs that run, come next, have ended last."""

    read_at: str
    waiting: list[InPhase]
    running: list[Job]
    next: list[Job]
    ended: list[Job]
    dead_letters: int


class LogPart(TypedDict):
    """Output without a gap in it, from the position `start` on; `data` is base64.

    `missing` bytes before it are not kept; None: nobody knows how many, or some of it comes again.
    """

    start: int
    missing: int | None
    data: str


class LogPage(TypedDict):
    """What is kept of an attempt's output from a position on; `next` is where to go on.

    `ended`: nothing comes after this page. `next_attempt` is behind this one, once it was begun.
    """

    attempt: int
    parts: list[LogPart]
    next: int
    more: bool
    ended: bool
    next_attempt: int | None
    finished: bool


class Event(TypedDict):
    """One transition of a job or an attempt."""

    type: str
    event_id: int
    job_id: str
    attempt: int
    at: str
    actor: str
    detail: dict[str, Any]


class LifecycleEvent(TypedDict):
    """An event as listeners and webhooks get it; what is absent or not known yet is left out."""

    type: str
    v: int
    event_id: int
    job_id: str
    attempt: int
    at: str
    actor: str
    detail: dict[str, Any]
    labels: dict[str, str]
    times: dict[str, str]
    key: NotRequired[str]
    outcome: NotRequired[str]
    exit_code: NotRequired[int]
    reason: NotRequired[str]
    instance_id: NotRequired[str]


class EventPage(TypedDict):
    """Events by their numbers; `next` is the number to go on after, `more`: go on at once."""

    events: list[LifecycleEvent]
    next: int
    more: bool


class WebhookTest(TypedDict):
    """A test event; without `accepted` and `result` it has not been sent yet."""

    id: str
    accepted: bool | None
    result: str | None
    at: str | None


class Webhook(TypedDict):
    """A webhook, and how it fares; `secret` only when it has just been made."""

    name: str
    url: str
    labels: dict[str, str]
    types: list[str]
    state: str
    failures: int
    failing_since: str | None
    try_at: str
    accepted_at: str | None
    last_error: str | None
    last_error_at: str | None
    paused_at: str | None
    disabled_at: str | None
    disabled_why: str | None
    tested: WebhookTest | None
    pending: int
    oldest_pending_at: str | None
    failed: int
    created_at: str
    updated_at: str
    secret: NotRequired[str]


class WebhookPage(TypedDict):
    """Webhooks by name; `next` is the name to go on after."""

    webhooks: list[Webhook]
    next: str | None


class FailedDelivery(TypedDict):
    """An event that was given up."""

    event_id: int
    job_id: str
    type: str
    at: str
    failures: int
    last_error: str | None
    dead_at: str
    body: LifecycleEvent


class FailedPage(TypedDict):
    """Events that were given up, by their numbers; `next` is the number to go on after."""

    deliveries: list[FailedDelivery]
    next: int | None


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


class DeadLetter(TypedDict):
    """A message that nobody could use, as it is in a list."""

    id: str
    state: str
    reason: str
    detail: str
    errors: dict[str, str]
    queue: str | None
    exchange: str | None
    routing_key: str | None
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    body_size: int
    replay_of: str | None
    not_replayable: str | None
    dead_at: str | None
    received_at: str
    decided_at: str | None
    decided_by: str | None
    replayed_at: str | None
    read_at: str


class Death(TypedDict):
    """One entry of the broker's history of a message."""

    queue: str
    reason: str
    count: int
    time: str | None
    exchange: str
    routing_keys: list[str]


class DeadLetterDetail(DeadLetter):
    """A dead letter with its message; `body_not_shown` says why the body of a kept one is null."""

    deaths: list[Death]
    properties: dict[str, Any]
    body: str | None
    body_not_shown: str | None


class DeadLetterPage(TypedDict):
    """Dead letters, the newest first; `next` is the id to go on after."""

    dead_letters: list[DeadLetter]
    next: str | None


class LimitUse(TypedDict):
    """What is counted under one name; `waiting` up to 1,000."""

    name: str
    used: int
    waiting: int


class Limit(TypedDict):
    """A concurrency limit; of `KEY=*` the values of the label that are in use or waited for."""

    name: str
    most: int
    changed_at: str
    changed_by: str
    uses: list[LimitUse]


class LimitChange(TypedDict):
    """One change of a concurrency limit; None where there was none, or is none any more."""

    name: str
    before: int | None
    after: int | None
    actor: str
    at: str


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
