"""The tags of launch groups' instances, where EC2 refuses some of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from atemporal.cloud import (
    CloudError,
    Forbidden,
    NoAnswer,
    NoInstance,
    Rejected,
    ServerFault,
    Throttled,
    Unauthorized,
)
from atemporal.model import AttemptRef
from atemporal.store import groups
from atemporal.store.database import Database
from services.launcher import tagging
from tests.integration.grouping import Groups


class Tagger:
    """EC2's side: refuses some instances with one failure."""

    def __init__(self, kind: type[CloudError]) -> None:
        """Refuse with this."""
        self.kind = kind
        self.refused: set[str] = set()
        self.asked: list[str] = []

    def tag(self, instance_id: str, ref: AttemptRef) -> None:
        """Tag, or refuse."""
        self.asked.append(instance_id)
        if instance_id in self.refused:
            raise self.kind("tagging", "Code", "why")


@pytest.fixture
def world(database: Database) -> Iterator[Groups]:
    world = Groups(database)
    yield world
    world.cloud.real.close()
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, launch_groups, events, rate_limits CASCADE"))


def untagged(world: Groups) -> list[str]:
    with world.database.begin() as tx:
        return [one for _, one in groups.untagged(tx, limit=100)]


@pytest.mark.parametrize("kind", [Rejected, ServerFault, NoInstance])
def test_one_that_is_refused_holds_up_none_behind_it(
    world: Groups, kind: type[CloudError]
) -> None:
    world.burst(3)
    cloud = Tagger(kind)
    first = untagged(world)[0]
    cloud.refused = {first}
    tagging.TagLoop(world.database, cloud, interval_s=60).tick()  # type: ignore[arg-type]
    assert untagged(world) == [first]


def test_a_batch_that_is_refused_for_good_hides_nothing(
    world: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagging, "_BATCH", 2)
    world.burst(5)
    cloud = Tagger(Rejected)
    cloud.refused = set(untagged(world)[:2])
    loop = tagging.TagLoop(world.database, cloud, interval_s=60)  # type: ignore[arg-type]
    for _ in range(3):
        loop.tick()
    assert set(untagged(world)) == cloud.refused
    assert len(cloud.asked) == 5, "and the refused are asked for once"


@pytest.mark.parametrize("kind", [Throttled, Unauthorized, Forbidden, NoAnswer])
def test_what_concerns_all_ends_the_look(world: Groups, kind: type[CloudError]) -> None:
    world.burst(3)
    cloud = Tagger(kind)
    cloud.refused = set(untagged(world))
    loop = tagging.TagLoop(world.database, cloud, interval_s=60)  # type: ignore[arg-type]
    assert loop.tick() == 60
    assert len(cloud.asked) == 1
