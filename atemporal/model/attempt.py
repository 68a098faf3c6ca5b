"""An attempt: one instance's life for one job, and the intent it was launched with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from atemporal.billing import Price, billed_s
from atemporal.model.frozen import Frozen
from atemporal.states import AttemptState, BlockedReason, Reason
from atemporal.tags import LabelTags, of_labels


class AttemptRef(NamedTuple):
    """Which attempt of which job: the fencing pair every guarded update carries."""

    job_id: UUID
    number: int

    @property
    def id(self) -> str:
        """The attempt's name in tokens, tags, logs and on the machine."""
        return f"{self.job_id}.{self.number}"


class Launch(BaseModel):
    """The intent: all that a RunInstances call is made of, committed before the call.

    It is kept so that a repeated call is the identical call even when settings have changed since.
    `placement` counts the offerings tried for one attempt; the ClientToken is derived from it.
    `calls` counts the calls that may have been sent with this placement: once there was one, the
    offering is exchanged only for a definite refusal. A row that does not say is taken to have one.
    `unsure_at` is when the last of them was sent that may have launched an instance for all that is
    known, by the database's clock; None when all were refused.
    `boot_s` is how long a machine asks for its job, if that is not in its user-data. `delivery` says
    whether it is, of an attempt that is launched alone; before there was a choice it always was.
    `installation` is whose instance it will be; rows of older releases do not say.
    `tags` are the deployment's for its instance and volumes, `label_tags` which of the job's labels
    become tags too; rows of older releases have neither, and their instances get our own tags alone.
    `hour_price` and `gb_month_price` are what the instance costs in an hour and a GB of its disks in a
    month, in billionths of a dollar, by the price table of that time; `disks_gb` is how large the disks
    are. Without `hour_price` its cost is not known.
    `hold_s` is for how long after the intent its machine may hold its container; the agent of an older
    launcher does not hold at all.
    """

    # A newer release may have written more.
    model_config = ConfigDict(frozen=True, extra="ignore")

    placement: int = 0
    calls: int = 1
    unsure_at: datetime | None = None
    image_id: str
    instance_type: str
    capacity_type: Literal["on-demand", "spot"] = Field(
        default="on-demand", validation_alias=AliasChoices("capacity_type", "market")
    )
    subnet_id: str | None = None
    security_group_ids: tuple[str, ...] = ()
    key_name: str | None = None
    instance_profile: str | None = None
    disk_gb: int | None = None
    os_family: str = Field(
        default="flatcar", validation_alias=AliasChoices("os_family", "flavour")
    )
    callback_base: str
    key_id: str
    deadline_s: int
    pull_s: int = 120
    hold_s: int = 0
    boot_s: int = 900
    delivery: Literal["inline", "claim"] = "inline"
    installation: UUID | None = None
    tags: dict[str, str] | None = None
    label_tags: tuple[str, ...] = ()
    hour_price: int | None = None
    gb_month_price: int = 0
    disks_gb: int = 0

    @property
    def price(self) -> Price | None:
        """What it costs; None where that is not known."""
        if self.hour_price is None:
            return None
        return Price(self.hour_price, self.gb_month_price, self.disks_gb)

    def tags_of(self, labels: Mapping[str, str]) -> LabelTags:
        """The tags that a job's labels become."""
        return of_labels(labels, deployment=self.tags or {}, chosen=self.label_tags)

    def labelled(self, labels: Mapping[str, str]) -> Launch:
        """The launch with the tags of its job's labels beside the deployment's."""
        more = self.tags_of(labels).tags
        return self.model_copy(update={"tags": {**(self.tags or {}), **more}}) if more else self


def _reason_if_known(stored: Any) -> Any:
    return stored if stored in frozenset(Reason) else None


def _blocked_reason_if_known(stored: Any) -> Any:
    return stored if stored in frozenset(BlockedReason) else None


KnownReason = Annotated[Reason | None, BeforeValidator(_reason_if_known)]
KnownBlockedReason = Annotated[BlockedReason | None, BeforeValidator(_blocked_reason_if_known)]


class Attempt(Frozen):
    """One instance's life for one job, as it is recorded.

    `reason` is None as well for one that only a newer release knows; `state` says that it ended.
    `instance_id` is EC2's word: its answer to the launch, or an instance with the attempt's tags.
    `instance_proof` shows that a daemon of this deployment heard it from EC2 (see `tokens`).
    `claimed_instance_id` is what the machine that was granted the claim said of itself: it proves
    nothing.
    `group_id` is the launch group whose call asks for its instance, or has launched it.
    `blocked_on` is what keeps it from its instance, or kept it until it ended without one.
    `start_at` is the time for which it was begun ahead, None when it was due already; `lead_s` is how
    long it might take from `dispatch_at` by the estimate of that time. `started_at` is when its
    container started, by the clock that counts (see `machine_clock`). `clock_offset_ms` is how far its
    machine's clock is ahead of the database's, `clock_synchronised` whether that machine calls it so.
    `log_bytes` is how many bytes its container wrote in all, where its machine knows; `log_tail` is the
    end of them.
    `billed_from` and `billed_until` are when EC2 began and ended to bill its instance, as far as EC2 or
    our own records tell, and `billed_s` for how many seconds; `booked` is what that cost, in billionths
    of a dollar. But for `billed_until` they are written once it is closed.
    `end_code` is EC2's code for the end of its instance (see `end_code`). `detail` is a sentence for
    people: nothing may be decided by it.
    """

    job_id: UUID
    number: int
    state: AttemptState
    reason: KnownReason = None
    launch: Launch
    instance_id: str | None = None
    group_id: UUID | None = None
    claimed_instance_id: str | None = None
    instance_proof: str | None = Field(default=None, repr=False)
    public_dns: str | None = None
    public_ip: str | None = None
    claim: str | None = None
    blocked_on: KnownBlockedReason = None
    end_code: str | None = None
    exit_code: int | None = None
    oom_killed: bool | None = None
    log_tail: bytes | None = Field(default=None, repr=False)
    log_bytes: int | None = None
    detail: str | None = None
    created_at: datetime
    launched_at: datetime | None = None
    booted_at: datetime | None = None
    running_at: datetime | None = None
    exited_at: datetime | None = None
    closed_at: datetime | None = None
    dispatch_at: datetime | None = None
    lead_s: float | None = None
    start_at: datetime | None = None
    ready_at: datetime | None = None
    started_at: datetime | None = None
    clock_synchronised: bool | None = None
    clock_offset_ms: int | None = None
    billed_from: datetime | None = None
    billed_until: datetime | None = None
    billed_s: int | None = None
    booked: int | None = None

    def cost_at(self, now: datetime) -> int | None:
        """What it has cost by `now`, in billionths of a dollar; None where no price is known.

        As it was booked, else by what is known so far.
        """
        if self.booked is not None:
            return self.booked
        begin = self.billed_from or self.launched_at
        if begin is None or self.instance_id is None:
            return 0
        if self.launch.price is None:
            return None
        # A reaper of the release before closes without a word of it.
        end = self.billed_until or self.closed_at or now
        return self.launch.price.cost(billed_s(begin, max(begin, end)))

    @property
    def start_skew(self) -> timedelta | None:
        """From the time it was begun ahead of to its container's start, once that is known."""
        if self.start_at is None or self.started_at is None:
            return None
        return self.started_at - self.start_at

    @property
    def predicted_skew(self) -> timedelta | None:
        """What the estimate made of that when its launch began: nothing is on time."""
        if self.start_at is None or self.dispatch_at is None or self.lead_s is None:
            return None
        late = timedelta(seconds=self.lead_s) - (self.start_at - self.dispatch_at)
        return max(timedelta(), late)

    @property
    def ahead(self) -> timedelta | None:
        """For how long its instance was there before its time: what the lead costs."""
        if self.start_at is None or self.launched_at is None:
            return None
        end = min(self.start_at, self.exited_at or self.start_at)
        return max(timedelta(), end - self.launched_at)

    @property
    def ref(self) -> AttemptRef:
        """The attempt's fencing pair."""
        return AttemptRef(self.job_id, self.number)
