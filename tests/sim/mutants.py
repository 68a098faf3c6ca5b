"""Mistakes that somebody could make in the product, each as a patch over it.

The simulation must find every one of them: a net that holds nothing is no proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

import atemporal.cloud.ec2
from atemporal.broker import Delivery
from atemporal.errors import Unknown
from atemporal.fleet.absence import Absence, missing
from atemporal.fleet.plan import decide
from atemporal.states import AttemptState, JobState
from atemporal.store import attempts, transitions
from tests.sim.broker import Link
from tests.sim.ec2 import HIDDEN_S
from tests.sim.simulation import Simulation
from tests.sim.world import CHANCES

Mutant = Callable[[pytest.MonkeyPatch, Simulation], None]


def random_client_token(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """A repeated RunInstances is another call to EC2."""
    request = atemporal.cloud.ec2.Cloud.request

    def changed(*given: Any) -> dict[str, Any]:
        return {**request(*given), "ClientToken": uuid4().hex}

    patch.setattr(atemporal.cloud.ec2.Cloud, "request", changed)


def next_zone_after_a_timeout(patch: pytest.MonkeyPatch, simulation: Simulation) -> None:
    """An open outcome is taken for a refusal: the next offering is tried.

    With more open outcomes than usual: of these only some launch twice.
    """
    patch.setitem(CHANCES, "ec2 no answer, done", 0.4)
    run = atemporal.cloud.ec2.Cloud.run

    def changed(cloud: Any, ref: Any, launch: Any, user_data: bytes) -> Any:
        try:
            return run(cloud, ref, launch, user_data)
        except Unknown:
            simulation.ground.execute(
                "UPDATE attempts SET launch = launch || "
                """'{"placement": 1, "subnet_id": "subnet-0b"}'"""
                " WHERE job_id = :job AND number = :number AND state = 'launching'",
                job=ref.job_id,
                number=ref.number,
            )
            raise

    patch.setattr(atemporal.cloud.ec2.Cloud, "run", changed)


def ack_before_commit(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """A batch is acknowledged as it comes."""
    receive = Link.receive

    def changed(link: Link, queue: str, **how: Any) -> list[Delivery]:
        batch = receive(link, queue, **how)
        link._unacked.clear()
        return batch

    patch.setattr(Link, "receive", changed)


def unguarded_update(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """A move does not look at the state it comes from."""
    patch.setattr(transitions, "job_states_before", lambda _: tuple(JobState))
    patch.setattr(transitions, "attempt_states_before", lambda _: tuple(AttemptState))


def claim_for_everybody(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """Whoever asks may run."""
    patch.setattr(attempts, "claim", lambda *_, **__: True)


def an_absence_counts_at_once(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """What one listing does not show is taken for gone, however young.

    All of the reaper's rules for absences at once: while any one of them is left (the grace, two
    looks, the look by id, a listing that shows nothing at all) it hides that another is missing.
    """

    def proven(snapshot: Any, grace_s: Any, **_: Any) -> Absence:
        gone = missing(snapshot, grace_s) if snapshot.whole else frozenset()
        return Absence(missing=gone, proven=gone)

    def changed(snapshot: Any, limits: Any, memory: Any) -> Any:
        return decide(snapshot, replace(limits, grace_s=0), memory)

    # No instance is listed at once: else this shows in one of hundreds.
    patch.setattr("tests.sim.ec2.HIDDEN_FOR_S", (HIDDEN_S,))
    patch.setattr("atemporal.fleet.plan.absence_in", proven)
    patch.setattr("services.reaper.reaper.decide", changed)


def the_dead_are_blamed(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """That a machine is gone is not seen: its attempt waits for its time to be over."""
    patch.setattr("atemporal.fleet.plan._gone", lambda *_: False)


def sweep_off(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """The reaper lives on messages alone."""
    patch.setattr("services.reaper.__main__.SweepLoop.tick", lambda _: 10.0)


def launch_sweep_off(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """The launcher lives on messages alone."""
    patch.setattr("services.launcher.__main__.SweepLoop.tick", lambda _: 10.0)


def who_waits_starts(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    """What is under way is not counted."""
    patch.setattr("atemporal.concurrency.Room.used", lambda *_: 0)


MUTANTS: tuple[Mutant, ...] = (
    random_client_token,
    next_zone_after_a_timeout,
    ack_before_commit,
    unguarded_update,
    claim_for_everybody,
    an_absence_counts_at_once,
    the_dead_are_blamed,
    sweep_off,
    launch_sweep_off,
    who_waits_starts,
)
