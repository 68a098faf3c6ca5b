"""One reaper sweeps, whatever their number; and while all is well EC2 is asked less often."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.daemon import Loop
from atemporal.fleet.plan import Limits
from atemporal.states import AttemptState
from atemporal.store import sweep_leases
from atemporal.store.database import Database
from atemporal.store.limit_waits import Use
from services.reaper import limits as limit_gauges
from services.reaper.auditor import VIOLATIONS, AuditLoop
from services.reaper.one_sweeper import MISSED, OneSweeper
from services.reaper.reaper import Reaper
from services.reaper.sweep import LEAKED_INSTANCES, LONGEST_WAIT, SweepLoop
from services.reaper.volumes import ORPHANED_VOLUMES, VolumeLoop
from tests.integration.reaping import World


class Counting:
    """How often EC2's listing is read."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.listings = 0
        self._all = world.cloud.all
        patch.setattr(world.cloud, "all", self)

    def __call__(self) -> Any:
        self.listings += 1
        return self._all()


@pytest.fixture
def listed(world: World, monkeypatch: pytest.MonkeyPatch) -> Counting:
    with world.database.begin() as tx:
        tx.execute(text("TRUNCATE sweep_leases"))
    return Counting(world, monkeypatch)


def sweeps(world: World, holder: str, **more: Any) -> SweepLoop:
    reaper = Reaper(world.database, world.cloud)
    return SweepLoop(
        reaper, world.database, limits=world.limits, interval_s=10, holder=holder, **more
    )


def later(world: World, seconds: float) -> None:
    with world.database.begin() as tx:
        tx.execute(
            text("UPDATE sweep_leases SET until = until - make_interval(secs => :s)"),
            {"s": seconds},
        )


class TestLease:
    def test_two_reapers_read_one_listing_an_interval(
        self, world: World, listed: Counting
    ) -> None:
        world.launch()
        one, other = sweeps(world, "a"), sweeps(world, "b")
        for _ in range(5):
            for loop in (one, other):
                loop.tick()
            later(world, 10)
        assert listed.listings == 5

    def test_the_other_takes_over_when_the_first_does_not_come_again(
        self, world: World, listed: Counting
    ) -> None:
        one, other = sweeps(world, "a"), sweeps(world, "b")
        one.tick()
        other.tick()
        assert listed.listings == 1
        later(world, 10 * MISSED + 1)
        other.tick()
        one.tick()
        assert listed.listings == 2

    @pytest.mark.parametrize("how", ["its tick failed", "it stops"])
    def test_the_other_takes_over_at_once_when_the_first_gives_up(
        self, world: World, listed: Counting, how: str
    ) -> None:
        one, other = sweeps(world, "a"), sweeps(world, "b")
        one.tick()
        one.reset()
        other.tick()
        assert listed.listings == 2
        one.reset()
        one.tick()
        assert listed.listings == 2, "it is the other's now"

    @pytest.mark.parametrize("kind", [AuditLoop, VolumeLoop])
    def test_what_is_looked_at_less_often_is_looked_at_by_one_too(
        self, world: World, listed: Counting, monkeypatch: pytest.MonkeyPatch, kind: Any
    ) -> None:
        checks: list[str] = []
        monkeypatch.setattr(AuditLoop, "_reconcile", lambda _: checks.append("audit"))
        monkeypatch.setattr(VolumeLoop, "_check", lambda _: checks.append("volumes"))
        more: dict[str, Any] = {"limits": world.limits} if kind is AuditLoop else {"grace_s": 1}
        loops = [
            kind(world.reaper, world.database, interval_s=1, holder=holder, every=2, **more)
            for holder in "ab"
        ]
        for _ in range(4):
            for loop in loops:
                loop.tick()
        assert len(checks) == 2

    def test_without_the_lock_nobody_sweeps_though_it_has_the_lease(
        self, world: World, listed: Counting
    ) -> None:
        loop = sweeps(world, "a")
        with world.database.only_one("reaper sweep") as mine:
            assert mine
            loop.tick()
        assert listed.listings == 0

    def test_who_sweeps_again_after_another_asks_ec2_at_once(
        self, world: World, listed: Counting
    ) -> None:
        """What it showed before is not shown any more, however quiet it was."""
        one, other = (sweeps(world, holder, quiet=100) for holder in "ab")
        one.tick()
        later(world, 10 * MISSED + 1)
        other.tick()
        one.tick()
        assert listed.listings == 2
        other.reset()
        one.tick()
        assert listed.listings == 3

    def test_who_does_not_sweep_any_more_does_not_show_what_it_saw_before(
        self, world: World, listed: Counting
    ) -> None:
        """Else the `max` over the reapers would keep it for as long as that one lives."""
        more: dict[str, Any] = {"interval_s": 1, "holder": "a"}
        limits = world.limits
        mine: list[Loop] = [
            sweeps(world, "a"),
            AuditLoop(world.reaper, world.database, limits=limits, **more),
            VolumeLoop(world.reaper, world.database, grace_s=1, **more),
        ]
        for kind in ("sweep", "audit", "volumes"):
            with world.database.each() as connection:
                assert sweep_leases.hold(connection, f"reaper {kind}", holder="b", for_s=60)
        seen = {
            "atemporal_leaked_instances": LEAKED_INSTANCES,
            "atemporal_longest_wait_seconds": LONGEST_WAIT.labels("boot"),
            "atemporal_record_violations": VIOLATIONS.labels("within_budget"),
            "atemporal_orphaned_volumes": ORPHANED_VOLUMES,
        }
        for gauge in seen.values():
            gauge.set(3)
        limit_gauges.report([Use("team=mi6", 5, 5, 1)])
        for loop in mine:
            loop.tick()
        assert listed.listings == 0
        shown = {
            sample.name
            for family in REGISTRY.collect()
            for sample in family.samples
            if sample.value and sample.name in seen
        }
        assert shown == set()
        slots = {"limit": "team=mi6"}
        assert REGISTRY.get_sample_value("atemporal_slots_used", slots) is None

    def test_a_lease_that_can_not_be_given_up_ends_by_itself(self, world: World) -> None:
        nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing")
        OneSweeper(nowhere, "x", interval_s=1, holder="a").give_up()


class TestQuiet:
    def test_while_all_is_well_ec2_is_asked_every_third_time(
        self, world: World, listed: Counting
    ) -> None:
        ref, instance_id = world.launch()
        world.claim(ref, instance_id)
        world.change(instance_id, state="running")
        loop = sweeps(world, "a", quiet=3)
        loop.tick()
        loop.tick()
        before = listed.listings
        assert before == 2, "its address was written down in the first"
        for _ in range(3):
            loop.tick()
        assert listed.listings == before
        assert loop._quiet is not None
        object.__setattr__(loop._quiet, "since", loop._quiet.since.replace(year=2000))
        loop.tick()
        assert listed.listings == before + 1

    def test_a_change_of_the_records_is_followed_at_once(
        self, world: World, listed: Counting
    ) -> None:
        ref, instance_id = world.launch()
        world.claim(ref, instance_id)
        world.change(instance_id, state="running")
        loop = sweeps(world, "a", quiet=3)
        loop.tick()
        loop.tick()
        before = listed.listings
        world.complete(ref)
        loop.tick()
        assert listed.listings == before + 1
        world.wait_gone(instance_id)
        loop.tick()
        assert world.attempt(ref).state is AttemptState.CLOSED

    @pytest.mark.parametrize("what", ["booting", "orphaned", "ending"])
    def test_while_something_is_on_its_way_ec2_is_asked_each_time(
        self, world: World, listed: Counting, what: str
    ) -> None:
        if what == "booting":
            world.launch()
        elif what == "orphaned":
            world.limits = Limits(3600, 3600, 3600, 300, 9999, grace_s=-1)
            world.foreign({"atemporal:deployment": "ours"})
        else:
            ref, instance_id = world.launch()
            world.cancel(ref)
            world.change(instance_id, state="shutting-down")
        loop = sweeps(world, "a", quiet=3)
        for _ in range(2):
            loop.tick()
        assert listed.listings == 2

    def test_what_is_queued_for_too_long_is_found_meanwhile(
        self, world: World, listed: Counting
    ) -> None:
        loop = sweeps(world, "a", quiet=3)
        for _ in range(4):
            loop.tick()
        assert listed.listings == 1, "nothing is open"
