"""What is judged in a simulated world: some things while they happen, the rest at the end.

Promise: the oracle looks at what is true (EC2's instances, what machines did, what is committed), never
at what the daemons think; whatever is broken is in `world.broken`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import text

from atemporal.broker import DEAD
from atemporal.concurrency import JOBS
from atemporal.messages import SUBMIT
from atemporal.model import AttemptRef
from atemporal.model.schedule import LABEL
from atemporal.states import LIVE_ATTEMPT, AttemptState, Reason
from atemporal.store import listing, schedules
from atemporal.store.invariants import violations
from tests.fires import broken_fires
from tests.sim.broker import Broker
from tests.sim.client import Client
from tests.sim.database import Ground
from tests.sim.ec2 import Instance, Region
from tests.sim.planner import NAME, Planner
from tests.sim.world import NOBODY, World, label

# When the run of an attempt is over its time.
_OVER = text(
    """
    SELECT a.running_at + make_interval(secs => (j.spec ->> 'timeout_s')::int)
    FROM attempts AS a JOIN jobs AS j ON j.id = a.job_id
    WHERE a.job_id = :job AND a.number = :number
    """
)


class Ran(NamedTuple):
    """When a container ran, in seconds since the epoch."""

    started: float
    ended: float | None


POISON = b"\xff not a message"


class Oracle:
    """Of one schedule."""

    def __init__(self, world: World, ground: Ground, region: Region, broker: Broker) -> None:
        """Remember where to look."""
        self._world = world
        self._ground = ground
        self._region = region
        self._broker = broker

    def kill(self, instance: Instance) -> None:
        """Look at an instance that is being ended."""
        if instance.ref == NOBODY:
            self._kill_nameless(instance)
            return
        rows = self._ground.rows(
            "SELECT state, instance_id FROM attempts WHERE job_id = :job AND number = :number",
            job=instance.ref.job_id,
            number=instance.ref.number,
        )
        if not rows:
            self._world.breaks(f"{instance.id} of {label(instance.ref)} was killed without a book")
        elif rows[0].state in LIVE_ATTEMPT and rows[0].instance_id in (None, instance.id):
            self._world.breaks(
                f"the healthy {instance.id} was killed: {label(instance.ref)} is {rows[0].state}"
            )

    def _kill_nameless(self, instance: Instance) -> None:
        """Nobody has it: then its group's call must have been answered, or need none any more."""
        waiting = self._ground.rows(
            "SELECT 1 FROM launch_groups g JOIN attempts a ON a.group_id = g.id WHERE g.id = :id"
            " AND g.settled_at IS NULL AND a.state = 'launching'",
            id=instance.group,
        )
        if waiting:
            self._world.breaks(f"{instance.id} was killed, and its group waits for it")
        self._world.counts["instances that nobody got"] += 1

    def skip(self, instance: Instance) -> None:
        """Look at an instance that is being ended without its operating system."""
        self._world.counts["ends without the operating system"] += 1
        if instance.machine.phase == "running":
            self._world.breaks(f"the container on {instance.id} was not told to stop")

    def end(self, tx: Any, ref: AttemptRef, reason: Reason) -> None:
        """Look at what an attempt is ended for, before it is."""
        query = text("SELECT state FROM attempts WHERE job_id = :job AND number = :number")
        state = tx.scalar(query, {"job": ref.job_id, "number": ref.number})
        if state not in reason.ends:
            return
        of_it = [one for one in self._region.instances.values() if one.ref == ref]
        if reason is Reason.NO_CAPACITY and any(one.alive for one in of_it):
            self._world.breaks(f"{label(ref)} found no room, and its instance is alive")
        if reason is Reason.TIMED_OUT:
            over = tx.scalar(_OVER, {"job": ref.job_id, "number": ref.number})
            if of_it and all(one.ended_at and one.ended_at < over for one in of_it):
                self._world.breaks(f"{label(ref)} is called timed out, and died long before")
        alive = any(one.alive for one in of_it)
        if reason is Reason.INSTANCE_LOST and alive:
            self._world.breaks(f"{label(ref)} is called lost, and its instance is alive")
        if reason in (Reason.INSTANCE_LOST, Reason.BOOT_DEADLINE) and not alive:
            listed = [one for one in of_it if self._region.listed(one) and not one.silent]
            if any(one.machine.console for one in listed):
                self._world.breaks(
                    f"{label(ref)} is called {reason}, and its console knows its end"
                )
        if state == AttemptState.RUNNING and reason in (
            Reason.BOOT_DEADLINE,
            Reason.PULL_DEADLINE,
            Reason.LAUNCH_DEADLINE,
            Reason.LAUNCH_REFUSED,
        ):
            self._world.breaks(f"{label(ref)} runs, and is ended for its {reason}")

    def start(self, ref: AttemptRef) -> None:
        """Look at a container that a machine starts."""
        (job,) = self._ground.rows("SELECT run_at FROM jobs WHERE id = :job", job=ref.job_id)
        if self._world.now < job.run_at:
            self._world.breaks(f"{label(ref)} starts before its time, {job.run_at}")
        late = self._ground.rows(
            "SELECT 1 FROM events AS granted JOIN events AS cancelled USING (job_id)"
            " WHERE job_id = :job AND granted.attempt = :number"
            " AND granted.type = 'attempt.running' AND cancelled.type = 'job.finished.cancelled'"
            " AND cancelled.id < granted.id",
            job=ref.job_id,
            number=ref.number,
        )
        if late:
            self._world.breaks(f"{label(ref)} starts, and was cancelled before its claim")

    def confirmed(self, client: Client) -> None:
        """Look for a job message that the broker has confirmed."""
        queued = any(one.outgoing.message_id == client.key for one in self._broker.of(SUBMIT))
        written = self._ground.rows("SELECT id FROM jobs WHERE key = :key", key=client.key)
        if not queued and not written:
            self._world.breaks(f"the job message {client.key} was confirmed and is lost")

    def limited(self, name: str, most: int) -> None:
        """Count by the jobs and attempts alone what is under way beneath a concurrency limit."""
        queued, running, there = self._ground.rows(
            "SELECT (SELECT count(*) FROM jobs WHERE state = 'queued'),"
            " (SELECT count(*) FROM attempts WHERE state <> 'closed' AND exit_code IS NULL),"
            " (SELECT count(*) FROM attempts WHERE state <> 'closed')"
        )[0]
        under_way = queued + (running if name == JOBS else there)
        if under_way > most:
            self._world.breaks(f"{under_way} {name} are under way, and no more than {most} may")

    def leaks(self) -> None:
        """Look for instances whose attempts have ended, with time enough for the daemons."""
        ended = {
            AttemptRef(row.job_id, row.number)
            for row in self._ground.rows(
                "SELECT job_id, number FROM attempts WHERE state IN ('exited', 'closed')"
                " AND exited_at < (SELECT at FROM sim.clock)"
            )
        }
        for instance in self._region.instances.values():
            if instance.alive and instance.ref in ended:
                self._world.breaks(f"{instance.id} outlives {label(instance.ref)}")

    def verdict(self, clients: Sequence[Client], poison: int) -> None:
        """Look at everything once all has come to rest; so many job messages were poisoned."""
        world = self._world
        with self._ground.engine.connect() as tx:
            for violation in violations(tx):
                world.breaks(str(violation))
        jobs = {row.id: row for row in self._ground.rows("SELECT * FROM jobs")}
        tries = self._ground.rows("SELECT * FROM attempts")
        asked_for = [job for job in jobs.values() if LABEL not in job.spec.get("labels", {})]
        if len(asked_for) != len(clients):
            world.breaks(f"{len(clients)} clients have {len(asked_for)} jobs")
        for client in clients:
            job = jobs.get(client.job_id)
            if job is None:
                world.breaks(f"job {client.job_id} was acknowledged and is lost")
            elif client.cancelled and job.outcome != "cancelled":
                world.breaks(f"job {job.id} was cancelled and is {job.outcome}")
        for instance in self._region.instances.values():
            if instance.alive:
                world.breaks(f"{instance.id} of {label(instance.ref)} is left over")
        for one in tries:
            self._attempt(one)
        self._audit({AttemptRef(one.job_id, one.number): one.instance_id for one in tries})
        letters = self._ground.rows(
            "SELECT body, digest FROM dead_letters WHERE dead_at IS NOT NULL"
        )
        # A replica that rests in the calm may have some in hand.
        held = [one.outgoing.body for one in self._broker.of(DEAD)]
        dead = [*(bytes(row.body) for row in letters), *held].count(POISON)
        if dead < poison:
            world.breaks(f"{poison} poisoned job messages, {dead} dead letters")
        if len({row.digest for row in letters}) < len(letters):
            world.breaks("a dead letter was kept twice")
        if left := len(self._broker.queues[DEAD]):
            world.breaks(f"{left} dead letters were not kept")
        events = self._ground.rows("SELECT id FROM events")
        silent = [row.id for row in events if not self._broker.heard[f"event.{row.id}"]]
        if silent:
            world.breaks(f"nobody was told of the events {silent}")
        world.counts["jobs"] += len(jobs)
        world.counts["attempts"] += len(tries)

    def fires(self, planner: Planner) -> None:
        """Look at what became of a paused schedule's fires."""
        with self._ground.engine.connect() as tx:
            schedule = schedules.get(tx, NAME)
            fires = schedules.latest_fires(tx, schedule, limit=1000)
            of_it = listing.page(tx, limit=500, labels={LABEL: NAME}).jobs
        runs = {
            job.id: [
                Ran(
                    one.running_at.timestamp(),
                    one.exited_at.timestamp() if one.exited_at else None,
                )
                for one in job.attempts
                if one.running_at is not None
            ]
            for job in of_it
        }
        made = {job.id: job for job in of_it}
        for promise in broken_fires(schedule, fires, made, runs, by_hand=()):
            self._world.breaks(f"{NAME}: {promise}")
        for fire in fires:
            self._world.counts[f"fires {fire.reason or fire.outcome}"] += fire.count
        self._world.counts["schedules edited"] += planner.edits

    def _audit(self, recorded: dict[AttemptRef, str | None]) -> None:
        """Look at both sides: what is recorded was launched for it, and what EC2 shows is recorded."""
        groups = {
            AttemptRef(row.job_id, row.number): str(row.group_id)
            for row in self._ground.rows("SELECT job_id, number, group_id FROM attempts")
        }
        for ref, instance_id in recorded.items():
            instance = self._region.instances.get(instance_id or "")
            of_group = instance is not None and instance.group not in (None, groups[ref])
            if instance_id and (instance is None or instance.ref != ref or of_group):
                self._world.breaks(
                    f"{label(ref)} has {instance_id}, which EC2 launched not for it"
                )
        now = self._world.now
        for instance in self._region.instances.values():
            tagged = instance.tagged_until is None or now < instance.tagged_until
            shown = self._region.listed(instance) and tagged
            if instance.ref == NOBODY:
                continue
            if shown and recorded.get(instance.ref) is None:
                self._world.breaks(f"{instance.id} of {label(instance.ref)} was not written down")

    def _attempt(self, attempt: Any) -> None:
        ref = AttemptRef(attempt.job_id, attempt.number)
        if attempt.exit_code is None:
            return
        machines = [one.machine for one in self._region.instances.values() if one.ref == ref]
        if attempt.exit_code not in [one.record.get("exit_code") for one in machines]:
            self._world.breaks(f"{label(ref)} has exit code {attempt.exit_code}, which none gave")
