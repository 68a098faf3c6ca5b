"""Which instance is an attempt's: EC2 says it, whatever machines claim; afterwards all is in sync."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atemporal.cloud import NoAnswer
from atemporal.errors import Conflict
from atemporal.fleet.reconciliation import reconcile
from atemporal.model import AttemptRef
from atemporal.states import AttemptState, Reason
from atemporal.store import attempts
from atemporal.store.invariants import violations
from tests.integration.reaping import ENDED, LAUNCH, NOBODY, World, limits, tags_of, wait

BOOT = b"#!/bin/true\n"


def in_sync(world: World) -> bool:
    """The verdict of `atemporal audit`."""
    snapshot = world.reaper.fleet.snapshot_with_history()
    found = reconcile(snapshot, grace_s=0, stop_s=world.limits.stop_s)
    with world.database.begin() as tx:
        broken = violations(tx)
    assert not found.drift, [(row.status, row.why) for row in found.drift]
    assert not broken, [str(one) for one in broken]
    return True


def unanswered(world: World, **fields: object) -> tuple[AttemptRef, str]:
    """A new attempt that EC2 has launched, and the answer to that was lost."""
    before = world.states().keys()
    ref = world.begin(**fields)
    world.faults.add("timeout-after", call="RunInstances", times=1, seconds=0.0)
    with pytest.raises(NoAnswer):
        world.cloud.run(ref, LAUNCH, BOOT)
    (mine,) = world.states().keys() - before
    return ref, mine


def neighbours(world: World, _ref: AttemptRef) -> str:
    """Another attempt's instance, not written down yet."""
    return unanswered(world)[1]


FORGED: dict[str, Callable[[World, AttemptRef], str]] = {
    "never launched": lambda _world, _ref: NOBODY,
    "another attempt's": neighbours,
    "a wild card": lambda _world, _ref: "*",
    "a wild card in the form of an id": lambda _world, _ref: "i-*",
    "no id at all": lambda _world, _ref: "localhost",
    "somebody's without tags": lambda world, _ref: world.foreign({}),
    "another deployment's": lambda world, ref: world.foreign(tags_of(ref, "theirs")),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_claimed_id_is_not_believed_and_the_true_instance_is_found_by_its_tags(
    world: World, kind: str
) -> None:
    ref, mine = unanswered(world)
    forged = FORGED[kind](world, ref)
    before = world.states()
    world.claim(ref, forged)
    sweep = world.sweep()
    world.reaper.check([ref], world.limits)
    for _ in range(3):
        sweep.tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.instance_id) == (AttemptState.RUNNING, mine)
    assert attempt.claimed_instance_id == forged
    assert world.states() == before, "a claim ends no instance, whoever's"
    world.complete(ref)
    world.reaper.end_instances_of([ref])
    sweep.tick()
    world.wait_gone(mine)
    sweep.tick()
    assert world.attempt(ref).state is AttemptState.CLOSED
    assert {one: state for one, state in world.states().items() if one != mine} == {
        one: state for one, state in before.items() if one != mine
    }
    assert in_sync(world)


@pytest.mark.parametrize("kind", FORGED)
def test_the_launchers_answer_is_written_down_also_after_a_forged_claim(
    world: World, kind: str
) -> None:
    ref, mine = unanswered(world)
    world.claim(ref, FORGED[kind](world, ref))
    world.write_down(ref, world.cloud.run(ref, LAUNCH, BOOT).id)
    assert world.attempt(ref).instance_id == mine
    # Its answer was lost: the machine that was granted the claim asks again.
    world.claim(ref, "i-0fedcba9876543210")
    with pytest.raises(Conflict):
        world.claim(ref, mine, claim_id="another boot")


@pytest.mark.parametrize("kind", FORGED)
def test_a_machine_with_another_id_than_ec2_gave_is_refused(world: World, kind: str) -> None:
    ref, mine = world.launch()
    with pytest.raises(Conflict, match=mine):
        world.claim(ref, FORGED[kind](world, ref))
    assert world.attempt(ref).state is AttemptState.WARMING


def test_the_recorded_instance_of_another_attempt_can_not_be_claimed(world: World) -> None:
    _, taken = world.launch()
    ref, _ = unanswered(world)
    with pytest.raises(Conflict, match="another attempt"):
        world.claim(ref, taken)
    assert world.attempt(ref).state is AttemptState.LAUNCHING


@pytest.mark.parametrize("claimed", [NOBODY, "*", None])
def test_a_run_of_which_ec2_knows_no_instance_is_lost_and_nothing_else_ends(
    world: World, claimed: str | None
) -> None:
    _, bystander = world.launch()
    ref = world.begin()
    world.claim(ref, claimed)
    foreigner = world.foreign({})
    sweep = world.sweep()
    sweep.tick()
    assert world.attempt(ref).state is AttemptState.RUNNING
    for _ in range(4):
        sweep.tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.reason) == (AttemptState.CLOSED, Reason.INSTANCE_LOST)
    assert (attempt.instance_id, attempt.claimed_instance_id) == (None, claimed)
    assert world.states() == dict.fromkeys((bystander, foreigner), "pending")
    assert in_sync(world)


def test_a_young_run_of_which_ec2_shows_no_instance_yet_goes_on(world: World) -> None:
    world.limits = limits(grace_s=60)
    world.launch()
    ref = world.begin()
    world.claim(ref, NOBODY)
    for _ in range(4):
        world.sweep().tick()
    assert world.attempt(ref).state is AttemptState.RUNNING


def test_a_foreign_instance_that_was_claimed_keeps_no_run_alive(world: World) -> None:
    world.launch()
    ref = world.begin()
    foreigner = world.foreign({})
    world.claim(ref, foreigner)
    sweep = world.sweep()
    for _ in range(5):
        sweep.tick()
    assert world.attempt(ref).reason is Reason.INSTANCE_LOST
    assert world.states()[foreigner] == "pending"


def test_one_that_lost_its_tags_before_it_was_written_down_is_known_by_its_launch(
    world: World,
) -> None:
    world.launch()
    ref, mine = unanswered(world)
    world.change(mine, tags={})
    world.claim(ref, mine)
    sweep = world.sweep()
    for _ in range(5):
        sweep.tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.instance_id) == (AttemptState.RUNNING, mine)
    assert world.states()[mine] == "pending"


@pytest.mark.parametrize("how", ["cancelled", "refused", "late"])
def test_an_ambiguous_launch_that_was_closed_before_ec2_listed_it_is_written_down(
    world: World, how: str
) -> None:
    _, bystander = world.launch()
    world.faults.add("hidden", seconds=3.0)
    ref = world.begin(infra_retries=0)
    world.faults.add("timeout-after", call="RunInstances", times=1, seconds=0.0)
    with pytest.raises(NoAnswer):
        world.cloud.run(ref, LAUNCH, BOOT)
    world.faults.clear()
    if how == "cancelled":
        world.cancel(ref)
    else:
        reason = Reason.LAUNCH_REFUSED if how == "refused" else Reason.LAUNCH_DEADLINE
        with world.database.begin() as tx:
            assert attempts.end(tx, ref, reason, actor="test")
    sweep = world.sweep()
    sweep.tick()
    sweep.tick()
    before = world.attempt(ref)
    assert (before.state, before.instance_id) == (AttemptState.CLOSED, None)
    wait(lambda: len(world.states()) == 2)
    (mine,) = world.states().keys() - {bystander}
    sweep.tick()
    assert world.states()[mine] in ENDED
    world.wait_gone(mine)
    sweep.tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.instance_id) == (AttemptState.CLOSED, mine)
    assert before.closed_at
    assert attempt.closed_at
    assert attempt.closed_at > before.closed_at, "as of now: EC2 has shown the instance gone"
    assert world.states()[bystander] == "pending"
    assert in_sync(world)
    sweep.tick()
    assert world.attempt(ref) == attempt


def test_a_launchers_late_answer_does_not_reopen_a_closed_attempt(world: World) -> None:
    ref = world.begin()
    world.cancel(ref)
    with world.database.begin() as tx:
        assert attempts.close(tx, ref, actor="test")
    mine = world.cloud.run(ref, LAUNCH, BOOT).id
    world.write_down(ref, mine)
    assert world.attempt(ref).instance_id is None, "it may run yet: closed means gone"
    sweep = world.sweep()
    sweep.tick()
    world.wait_gone(mine)
    sweep.tick()
    assert world.attempt(ref).instance_id == mine
    assert in_sync(world)


def test_of_two_instances_the_one_whose_machine_was_granted_the_claim_goes_on(
    world: World,
) -> None:
    ref, first = world.launch()
    with world.database.begin() as tx:
        attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test")
    assert world.attempt(ref).instance_id == first
    other, one = unanswered(world)
    second = world.foreign(tags_of(other, installation=world.identity()))
    world.claim(other, second)
    world.write_down(other, one)
    sweep = world.sweep()
    sweep.tick()
    assert world.attempt(other).instance_id == second
    sweep.tick()
    states = world.states()
    assert states[one] in ENDED
    assert (states[first], states[second]) == ("pending", "pending")


def test_of_two_instances_without_a_claim_the_living_one_is_written_down(world: World) -> None:
    ref, gone = unanswered(world)
    world.change(gone, state="terminated")
    alive = world.foreign(tags_of(ref, installation=world.identity()))
    world.sweep().tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.instance_id) == (AttemptState.WARMING, alive)
