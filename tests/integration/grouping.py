"""A launcher that launches in groups, and the cloud that it asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from atemporal.cloud import (
    CloudError,
    Instance,
    Throttled,
    TooMany,
    WrongImage,
)
from atemporal.cloud.instance import tags_of_group
from atemporal.model import AttemptRef, Launch, LaunchGroup
from atemporal.store import groups
from atemporal.store.database import Database
from tests.integration.launching import (
    Done,
    ScriptedCloud,
    World,
    error,
    tags_in,
)

THROTTLED = error(Throttled, "RequestLimitExceeded")


TOO_MANY = error(TooMany, "ResourceCountExceeded")


@dataclass(frozen=True)
class Some:
    """An outcome for the script: so many instances are launched and no more."""

    many: int


@dataclass
class GroupCloud(ScriptedCloud):
    """EC2, for calls of many: the same call gives the same instances again."""

    outcomes: list[CloudError | Done | Some] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    launched: dict[str, list[Instance]] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    hidden: bool = False

    def run_group(
        self, group_id: UUID, launch: Launch, size: int, user_data: bytes
    ) -> list[Instance]:
        if launch.image_id in self.wrong_images:
            raise WrongImage("launching", "WrongImage", "not flatcar")
        request = self.real._group_request(group_id, launch, size, user_data)
        token = request["ClientToken"]
        # Another request with the same token is what EC2 refuses.
        assert self.requests.setdefault(token, repr(request)) == repr(request)
        self.sizes.append(size)
        if refused := self.policy(tags_in(request)):
            raise refused
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, CloudError):
            raise outcome
        if token not in self.launched:
            many = min(size, outcome.many) if isinstance(outcome, Some) else size
            first = sum(map(len, self.launched.values()))
            self.launched[token] = [
                Instance(
                    id=f"i-8{first + number:016x}",
                    state="running",
                    launched_at=datetime.now(UTC),
                    client_token=token,
                    tags=tags_of_group("default", group_id),
                )
                for number in range(many)
            ]
        if isinstance(outcome, Done):
            raise outcome.error
        return self.launched[token]

    def find_group(self, group_id: UUID) -> list[Instance]:
        return [] if self.hidden else [one for one in self.all() if one.group_id == group_id]

    def all(self) -> list[Instance]:
        of_groups = [one for some in self.launched.values() for one in some]
        return [*super().all(), *of_groups]


class Groups(World):
    """A world whose launcher launches in groups."""

    cloud: GroupCloud

    def __init__(self, database: Database, **settings: Any) -> None:
        super().__init__(database, **{"launch_group_size": 200, **settings})
        self.cloud = GroupCloud(self.cloud.real)
        self.restart()

    def restart(self, **settings: Any) -> None:
        """A new process, with other settings where they are given."""
        self.settings = self.settings.model_copy(update=settings)
        super().restart()

    def burst(self, many: int, **machine: Any) -> list[AttemptRef]:
        """Jobs of one shape, and what a message for each makes the launcher do."""
        refs = [self.queued(**machine) for _ in range(many)]
        self.work(refs)
        return refs

    def work(self, refs: list[AttemptRef]) -> None:
        for subject, spec in self.launcher.begin(refs):
            self.launcher.call(subject, spec)

    def later(self, seconds: float) -> None:
        super().later(seconds)
        with self.database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE launch_groups SET called_at = called_at - make_interval(secs => :s),"
                    " launch = launch || jsonb_build_object('unsure_at',"
                    " (launch ->> 'unsure_at')::timestamptz - make_interval(secs => :s))"
                ),
                {"s": seconds},
            )

    def sweeps(self, times: int = 12) -> None:
        """Let the sweep find what is left, again and again."""
        for _ in range(times):
            self.later(1)
            self.sweep.tick()

    def instances(self, refs: list[AttemptRef]) -> list[str]:
        found = [self.attempt(ref).instance_id for ref in refs]
        return [one for one in found if one]

    def groups(self) -> list[LaunchGroup]:
        with self.database.begin() as tx:
            ids = tx.scalars(text("SELECT id FROM launch_groups ORDER BY created_at, id"))
            return [groups.get(tx, one) for one in ids]

    def each_has_one(self, refs: list[AttemptRef]) -> bool:
        """Each attempt has an instance that was launched, and none has another's."""
        ids = self.instances(refs)
        known = {one.id for one in self.cloud.all()}
        return len(set(ids)) == len(refs) == len(ids) and set(ids) <= known
