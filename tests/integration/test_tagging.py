"""The tags of launch groups' instances, where EC2 refuses some of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import pytest
from sqlalchemy import text

from atemporal.cloud import (
    Cloud,
    CloudError,
    Forbidden,
    NoAnswer,
    NoInstance,
    Rejected,
    ServerFault,
    TagRefused,
    Throttled,
    Unauthorized,
)
from atemporal.model import AttemptRef
from atemporal.store.database import Database
from atemporal.store.untagged import find
from services.launcher import tagging
from tests.integration.grouping import Groups


class Tagger:
    """EC2's side: refuses some resources, or some tags, with one failure."""

    def __init__(self, kind: type[CloudError] = Rejected) -> None:
        """Refuse with this."""
        self.kind = kind
        self.refused: set[str] = set()
        self.refused_keys: set[str] = set()
        self.asked: list[str] = []
        self.calls: list[tuple[list[str], dict[str, str], AttemptRef | None]] = []
        self.listings: list[list[str]] = []
        self.volumes: dict[str, list[str]] | None = None
        self.may_list = True

    def tag(
        self, ids: Sequence[str], tags: Mapping[str, str], ref: AttemptRef | None = None
    ) -> None:
        """Tag, or refuse."""
        self.asked += [ids[0]] if ref else []
        self.calls.append((list(ids), dict(tags), ref))
        if self.refused & set(ids) or self.refused_keys & set(tags):
            raise self.kind("tagging", "Code", "why")

    def volumes_of(self, instance_ids: Iterable[str]) -> dict[str, list[str]]:
        """One of each, unless a test says otherwise."""
        self.listings.append(list(instance_ids))
        if not self.may_list:
            raise Forbidden("listing", "UnauthorizedOperation", "why")
        if self.volumes is not None:
            return self.volumes
        return {one: [volume_of(one)] for one in self.listings[-1]}


def volume_of(instance_id: str) -> str:
    return instance_id.replace("i-", "vol-")


def loop_of(world: Groups, cloud: Tagger) -> tagging.TagLoop:
    return tagging.TagLoop(world.database, cast(Cloud, cloud), interval_s=60)


@pytest.fixture
def world(database: Database) -> Iterator[Groups]:
    world = Groups(database)
    yield world
    world.cloud.real.close()
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, launch_groups, events, rate_limits CASCADE"))


def untagged(world: Groups) -> list[str]:
    with world.database.begin() as tx:
        return [one.instance_id for one in find(tx, limit=100)]


def burst(world: Groups, *labels: dict[str, str]) -> list[AttemptRef]:
    """Jobs of one shape with these labels; each has its instance."""
    refs = [world.queued() for _ in labels]
    with world.database.begin() as tx:
        for ref, one in zip(refs, labels, strict=True):
            tx.execute(
                text(
                    "UPDATE jobs SET spec = jsonb_set(spec, '{labels}', cast(:l AS jsonb))"
                    " WHERE id = :id"
                ),
                {"l": json.dumps(one), "id": ref.job_id},
            )
    world.work(refs)
    return refs


def older(world: Groups, seconds: float) -> None:
    """So long ago EC2 named the instances."""
    with world.database.begin() as tx:
        tx.execute(
            text("UPDATE attempts SET launched_at = launched_at - make_interval(secs => :s)"),
            {"s": seconds},
        )


@pytest.mark.parametrize("kind", [Rejected, ServerFault, NoInstance])
def test_one_that_is_refused_holds_up_none_behind_it(
    world: Groups, kind: type[CloudError]
) -> None:
    world.burst(3)
    cloud = Tagger(kind)
    first = untagged(world)[0]
    cloud.refused = {first}
    loop_of(world, cloud).tick()
    assert untagged(world) == [first]


def test_a_batch_that_is_refused_for_good_hides_nothing(
    world: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagging, "_BATCH", 2)
    monkeypatch.setattr(tagging, "_AHEAD", 2)
    world.burst(5)
    cloud = Tagger(Rejected)
    cloud.refused = set(untagged(world)[:2])
    loop = loop_of(world, cloud)
    for _ in range(3):
        loop.tick()
    assert set(untagged(world)) == cloud.refused
    assert len(cloud.asked) == 5, "and the refused are asked for once"


@pytest.mark.parametrize("kind", [NoInstance, ServerFault])
def test_whole_batches_that_fail_hold_up_none_behind_them_and_are_not_asked_for_each_second(
    world: Groups, monkeypatch: pytest.MonkeyPatch, kind: type[CloudError]
) -> None:
    monkeypatch.setattr(tagging, "_BATCH", 2)
    monkeypatch.setattr(tagging, "_AHEAD", 3)
    world.burst(8)
    older(world, 61)
    cloud = Tagger(kind)
    cloud.refused = set(untagged(world)[:5])
    loop = loop_of(world, cloud)
    in_s = [loop.tick() for _ in range(5)]
    assert set(untagged(world)) == cloud.refused
    # Three looks are for those at the head, the third for one behind as well; the fifth tags none.
    assert in_s == [60, 60, 1, 1, 60]
    asked = len(cloud.asked)
    cloud.refused = set()
    for _ in range(3):
        loop.tick()
    assert untagged(world) == []
    assert len(cloud.asked) == asked + 5, "each of them was asked about again"


@pytest.mark.parametrize("labels", [{}, {"team": "a"}], ids=["none", "alike"])
@pytest.mark.parametrize("kind", [Throttled, Unauthorized, Forbidden, TagRefused, NoAnswer])
def test_what_concerns_all_ends_the_look(
    world: Groups, kind: type[CloudError], labels: dict[str, str]
) -> None:
    burst(world, *[labels] * 3, *[{"n": "1"}] * 2)
    cloud = Tagger(kind)
    cloud.refused = set(untagged(world))
    loop = loop_of(world, cloud)
    assert loop.tick() == 60
    assert len(cloud.calls) == 1
    cloud.refused = set()
    loop.tick()
    assert untagged(world) == []
    assert len(cloud.listings) == 1, "the volumes were known already"
    tagged = {one: tags for ids, tags, ref in cloud.calls[1:] if ref for one in ids}
    assert sorted(tagged.values(), key=str) == sorted(
        [*[labels] * 6, *[{"n": "1"}] * 4], key=str
    ), "on instances and volumes"


def test_labels_that_are_not_why_cost_two_calls_a_look(world: Groups) -> None:
    burst(world, *[{"n": str(number)} for number in range(5)])
    cloud = Tagger(Forbidden)
    cloud.refused = set(untagged(world))
    loop = loop_of(world, cloud)
    for tick in range(1, 4):
        assert loop.tick() == 60
        assert len(cloud.calls) == 2 * tick
    cloud.refused = set()
    loop.tick()
    assert untagged(world) == []
    assert {str(tags) for _, tags, _ in cloud.calls[-5:]} == {
        str({"n": str(number)}) for number in range(5)
    }, "none has lost its labels"


def test_instance_and_volumes_get_the_labels_with_the_attempts_own_tags(world: Groups) -> None:
    refs = burst(world, {"team": "a"}, {"team": "b"}, {})
    cloud = Tagger()
    loop_of(world, cloud).tick()
    attempts = [world.attempt(ref) for ref in refs]
    assert sorted(cloud.calls, key=lambda call: str(call[2])) == sorted(
        (
            ([one.instance_id, volume_of(str(one.instance_id))], labels, one.ref)
            for one, labels in zip(attempts, ({"team": "a"}, {"team": "b"}, {}), strict=True)
        ),
        key=lambda call: str(call[2]),
    )
    assert untagged(world) == []


def test_labels_that_many_have_alike_come_first_and_by_one_call(
    world: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagging, "_BATCH", 1)
    burst(world, *[{"team": "a", "x": "1"}] * 3, {"team": "b"}, {})
    ids = set(untagged(world))
    cloud = Tagger()
    loop = loop_of(world, cloud)
    for _ in range(2):
        loop.tick()
    (resources, labels, ref), *others = cloud.calls
    assert (labels, ref) == ({"team": "a", "x": "1"}, None)
    instances = {one for one in resources if one.startswith("i-")}
    assert len(instances) == 3
    assert set(resources) == instances | set(map(volume_of, instances))
    assert all(ref for _, _, ref in others), "no other call is for more than one"
    assert [set(one) for one in cloud.listings] == [ids], "one listing for all, once"


def test_labels_that_can_not_be_shared_come_with_the_call_of_each(world: Groups) -> None:
    burst(world, *[{"team": "a"}] * 3)
    cloud = Tagger()
    bad, *good = untagged(world)
    cloud.refused = {bad}
    loop_of(world, cloud).tick()
    tagged = {ids[0] for ids, tags, ref in cloud.calls if ref and tags == {"team": "a"}}
    assert tagged == {bad, *good}
    assert untagged(world) == [bad]


@pytest.mark.parametrize("kind", [Rejected, Forbidden, TagRefused])
def test_where_labels_are_refused_in_two_looks_the_own_tags_come_without(
    world: Groups, kind: type[CloudError]
) -> None:
    burst(world, {"team": "a"}, {"odd": "1"}, {"odd": "2"})
    cloud = Tagger(kind)
    cloud.refused_keys = {"odd"}
    loop = loop_of(world, cloud)
    loop.tick()
    last = {ref: tags for _, tags, ref in cloud.calls if ref}
    assert sorted(last.values(), key=str) == [{"team": "a"}, {}, {}], "its own are there at once"
    assert len(untagged(world)) == 2
    loop.tick()
    assert untagged(world) == []
    last = {ref: tags for _, tags, ref in cloud.calls if ref}
    assert sorted(last.values(), key=str) == [{"team": "a"}, {}, {}]


@pytest.mark.parametrize("kind", [Rejected, Forbidden, TagRefused])
def test_a_refusal_that_passes_costs_no_labels(world: Groups, kind: type[CloudError]) -> None:
    burst(world, {"odd": "1"}, {"odd": "2"})
    cloud = Tagger(kind)
    cloud.refused_keys = {"odd"}
    loop = loop_of(world, cloud)
    assert loop.tick() == 60, "so soon it would be refused again"
    cloud.refused_keys = set()
    loop.tick()
    assert untagged(world) == []
    last = {ref: tags for _, tags, ref in cloud.calls if ref}
    assert sorted(last.values(), key=str) == [{"odd": "1"}, {"odd": "2"}]


def test_an_instance_whose_volumes_ec2_does_not_show_yet_waits_a_minute_for_them(
    world: Groups,
) -> None:
    world.burst(2)
    cloud = Tagger()
    first, second = untagged(world)
    cloud.volumes = {second: ["vol-2"]}
    loop = loop_of(world, cloud)
    loop.tick()
    assert untagged(world) == [first]
    older(world, 61)
    loop.tick()
    assert untagged(world) == []
    assert [ids for ids, _, _ in cloud.calls] == [[second, "vol-2"], [first]]


def test_a_volume_that_has_gone_is_looked_up_again(world: Groups) -> None:
    world.burst(2)
    older(world, 61)
    first, second = untagged(world)
    cloud = Tagger(NoInstance)
    cloud.refused = {volume_of(first)}
    loop = loop_of(world, cloud)
    loop.tick()
    assert untagged(world) == [first]
    cloud.volumes = {}
    loop.tick()
    assert untagged(world) == []
    assert second not in cloud.listings[-1]


def test_a_launcher_that_may_not_list_volumes_tags_the_instances(world: Groups) -> None:
    burst(world, {"team": "a"}, {"team": "a"})
    ids = untagged(world)
    cloud = Tagger()
    cloud.may_list = False
    loop_of(world, cloud).tick()
    assert untagged(world) == []
    assert sorted(cloud.asked) == sorted(ids)


def test_a_job_that_can_not_be_read_gets_our_own_tags(world: Groups) -> None:
    (ref, _) = burst(world, {"team": "a"}, {"team": "b"})
    with world.database.begin() as tx:
        tx.execute(
            text("UPDATE jobs SET spec = jsonb_set(spec, '{labels}', '[7]') WHERE id = :id"),
            {"id": ref.job_id},
        )
    cloud = Tagger()
    loop_of(world, cloud).tick()
    assert untagged(world) == []
    assert {tags.get("team") for _, tags, _ in cloud.calls} == {None, "b"}
