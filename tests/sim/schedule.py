"""One schedule: replicas of all daemons, machines and clients stepped at random, then the calm.

Promise: a schedule is a function of its seed. The chaos run interleaves turns at every effect (a commit,
a publish, an acknowledgement, a call to EC2), lets processes die before or after one, and lets
everything fail that can. In the calm all must come right: what is broken is in `world.broken`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi.security import HTTPAuthorizationCredentials

from atemporal.broker import DEAD, Outgoing
from atemporal.concurrency import INSTANCES, JOBS
from atemporal.errors import Kept
from atemporal.messages import LAUNCH, REAP, SCHEDULE, SUBMIT
from atemporal.model import AttemptRef
from services.api.publisher import Publisher
from tests.sim.broker import Broker, Link, Message
from tests.sim.database import Ground, SimDatabase
from tests.sim.ec2 import Region
from tests.sim.machine import Machine, Manifest
from tests.sim.oracle import POISON, Oracle
from tests.sim.people import People
from tests.sim.stage import DAEMONS, SETTINGS, Api, is_ours
from tests.sim.tasks import Crash, Task
from tests.sim.world import World

STEPS = (30, 70)
JUMPS_S = (1, 5, 20, 35, 35, 130, 310, 700, 1900, 3700)
LIMITS = (None, None, (JOBS, 1), None, None, (INSTANCES, 2), None, (JOBS, 2), None, (INSTANCES, 1))
"""A concurrency limit for each seed, or none."""


@dataclass
class Process:
    """One replica: what is in it is lost when it dies."""

    kind: str
    database: SimDatabase
    loops: list[Any] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    publisher: Publisher | None = None
    alive: bool = True


@dataclass
class Running:
    """A tick or a request that has begun."""

    process: Process
    loop: Any
    task: Task
    name: str


class Schedule:
    """A world and all that lives in it."""

    def __init__(self, seed: int, ground: Ground, api: Api) -> None:
        """Set the scene; nothing happens yet."""
        self.world = World.of(seed)
        self._ground = ground
        self._api = api
        self.broker = Broker(self.world)
        self.region = Region(self.world, send=self._send, owner=self._owner)
        self.oracle = Oracle(self.world, ground, self.region, self.broker)
        self.region.judge_kill = self.oracle.kill
        self.region.judge_start = self.oracle.start
        self.region.judge_skip = self.oracle.skip
        # By the seed: what else is chosen at random stays as it is.
        self._limited = LIMITS[seed % len(LIMITS)]
        self._running: list[Running] = []
        self._building: Process | None = None
        self._poison = 0
        self._rests: dict[int, datetime] = {}
        rng = self.world.rng
        kinds = [kind for kind in (*DAEMONS, "api") for _ in range(rng.choice([1, 2]))]
        self.processes = [self._start(kind) for kind in kinds]
        self.people = People(self.world, ground, self.broker, self.oracle, self._serve)

    def link(self) -> Link:
        """A broker connection of the process that is being built."""
        assert self._building is not None
        link = Link(self.world, self.broker)
        self._building.links.append(link)
        return link

    def run(self) -> World:
        """The chaos run, the calm, the verdict."""
        self._ground.clear()
        if self._limited:
            self._limit(*self._limited)
        self.people.begin()
        for _ in range(self.world.rng.randint(*STEPS)):
            self._step()
            if self.world.broken:
                break
        if not self.world.broken:
            self._calm()
        self._stop()
        if not self.world.broken:
            self.oracle.verdict(self.people.clients, self._poison)
            if self.people.planner is not None:
                self.oracle.fires(self.people.planner)
        return self.world

    def _limit(self, name: str, most: int) -> None:
        """Set a concurrency limit: all run in the end, and never more at once."""
        self._ground.execute(
            "INSERT INTO concurrency_limits VALUES (:name, :most, now(), 'sim')",
            name=name,
            most=most,
        )
        self.world.note(f"no more than {most} {name}")

    # The chaos run

    def _step(self) -> None:
        rng = self.world.rng
        ready = [one for one in self.machines() if one.ready]
        busy = {id(one.loop) for one in self._running}
        idle = [
            (process, loop)
            for process in self.processes
            for loop in process.loops
            if process.alive and id(loop) not in busy
        ]
        useful = [(process, loop) for process, loop in idle if self._has_work(process, loop)]
        choices: list[tuple[Callable[[], None], float]] = [
            (lambda: self._pass_time(rng.choice(JUMPS_S)), 4),
            (lambda: self.people.step(rng.choice(self.people.clients)), 7),
            (lambda: self._die(rng.choice(self.processes), "killed"), 1),
            (self.broker.purge, 0.5),
            (self._poisoned, 0.3),
        ]
        if self.people.planner is not None:
            choices.append((self.people.plan, 2))
        if useful:
            choices.append((lambda: self._tick(*rng.choice(useful)), 40))
        if idle:
            choices.append((lambda: self._tick(*rng.choice(idle)), 2))
        if self._running:
            choices.append((lambda: self._resume(rng.choice(self._running)), 30))
        if ready:
            choices.append((lambda: rng.choice(ready).step(), 30))
        else:
            choices.append((lambda: self._pass_time(self._idle_s(60)), 12))
        if any(not one.alive for one in self.processes):
            choices.append((self._restart, 15))
        (action,) = rng.choices(
            [action for action, _ in choices], [weight for _, weight in choices]
        )
        action()

    def machines(self) -> list[Machine]:
        """The machines of instances that have not ended."""
        return [one.machine for one in self.region.instances.values() if one.alive]

    def _has_work(self, process: Process, loop: Any) -> bool:
        """Whether a tick is due and would find something to do: most real ticks do not."""
        if self._rests.get(id(loop), self.world.now) > self.world.now:
            return False
        queues: dict[str, str] = {
            "submit": SUBMIT,
            "schedule-messages": SCHEDULE,
            "launch": LAUNCH,
            "reap": REAP,
            "dead-letters": DEAD,
        }
        queue = queues.get(loop.name)
        if queue is not None:
            return bool(self.broker.queues[queue] or loop._inbox._batch)
        if process.publisher is not None:
            return bool(process.publisher._waiting)
        work = {
            "due": self._ground.records().due,
            "recurring": self._ground.records().fires,
            "start-deadlines": self._ground.records().late,
            "lead": self._ground.records().unplanned,
            "relay": self._ground.records().unrelayed,
            "launch-sweep": self._ground.records().unlaunched,
            "reap-sweep": self._ground.records().open,
            "launch-tags": self._ground.records().untagged,
            "launch-types": False,
            # They change nothing that is judged here, and only a thirtieth of their turns looks.
            "reap-volumes": False,
            "audit": False,
        }
        return bool(work.get(loop.name, True))

    def _idle_s(self, longest: float) -> float:
        """Seconds until something is due somewhere, `longest` at most."""
        soon = [at for one in self.machines() for at in one.moments()]
        records = self._ground.records()
        soon += [
            at for at in (records.next_due, records.next_look, records.next_late) if at is not None
        ]
        ahead = [(at - self.world.now).total_seconds() + 1 for at in soon if at > self.world.now]
        return min([longest, *ahead])

    def _tick(self, process: Process, loop: Any) -> None:
        def work() -> None:
            try:
                pause_s = loop.tick()
                self._rests[id(loop)] = self.world.after(pause_s)
            except Exception as error:  # noqa: BLE001 - as the daemon does it
                if not is_ours(error):
                    self.world.breaks(f"a tick of {loop.name} failed with {error!r}")
                self.world.counts["turns failed"] += 1
                self.world.note(f"{loop.name} failed: {error}")
                if not isinstance(error, Kept):
                    loop.reset()
                if self.world.calm:
                    self._rests[id(loop)] = self.world.after(1)

        self.world.counts["turns"] += 1
        self._begin(
            process, loop, f"{process.kind}{self.processes.index(process)} {loop.name}", work
        )

    def _begin(self, process: Process, loop: Any, name: str, work: Callable[[], Any]) -> Task:
        task = Task(process, work)
        running = Running(process, loop, task, name)
        self.world.note(f"{name} begins")
        self._running.append(running)
        self._resume(running)
        return task

    def _resume(self, running: Running) -> None:
        running.task.resume()
        if not running.task.done:
            self.world.note(f"{running.name} stops {self.world.where}")
            return
        self._running.remove(running)
        error = running.task.error
        if isinstance(error, Crash):
            self._die(running.process, str(error))
        elif error is not None:
            raise error

    def _die(self, process: Process, why: str) -> None:
        if not process.alive:
            return
        process.alive = False
        self.world.counts["processes died"] += 1
        self.world.note(f"{process.kind} dies: {why}")
        for running in [one for one in self._running if one.process is process]:
            self._running.remove(running)
            running.task.kill()
        for link in process.links:
            link.close()

    def _restart(self) -> None:
        dead = [i for i, one in enumerate(self.processes) if not one.alive]
        index = self.world.rng.choice(dead)
        self.processes[index] = self._start(self.processes[index].kind)

    def _start(self, kind: str) -> Process:
        process = Process(kind, SimDatabase(self.world, self._ground))
        self._building = process
        if kind == "api":
            process.publisher = Publisher(self.link())  # type: ignore[arg-type]
            process.loops = [process.publisher]
        else:
            process.loops = DAEMONS[kind](SETTINGS, process.database)
        self._building = None
        return process

    def _pass_time(self, seconds: float) -> None:
        # Postgres tells one time to all of a transaction: end those that are open.
        for running in [one for one in self._running if one.task.open_transactions]:
            while running in self._running and running.task.open_transactions:
                self._resume(running)
        if self._limited:
            self.oracle.limited(*self._limited)
        self.world.now = self.world.after(seconds)
        self._ground.set_clock(self.world.now)
        self.world.note(f"{seconds:g} s pass")

    def _poisoned(self) -> None:
        queues: list[str] = [SUBMIT, LAUNCH, REAP]
        queue = self.world.rng.choice(queues)
        self.broker.queues[queue].append(Message(Outgoing("poison", POISON, "poison", "")))
        self._poison += queue == SUBMIT
        self.world.counts["poison"] += 1

    # Machines

    def _owner(self, instance_id: str) -> AttemptRef | None:
        """The attempt that has an instance by the records."""
        query = "SELECT job_id, number FROM attempts WHERE instance_id = :id"
        rows = self._ground.rows(query, id=instance_id)
        return AttemptRef(rows[0].job_id, rows[0].number) if rows else None

    def _send(self, method: str, manifest: Manifest, body: bytes) -> Task | None:
        if method == "ASSIGN":
            return self._serve(
                "POST",
                "/groups/{group_id}/machines",
                group_id=manifest.group,
                token=HTTPAuthorizationCredentials(scheme="Bearer", credentials=manifest.token),
                body=body,
            )
        return self._serve(
            method,
            "/jobs/{job_id}/callback",
            job_id=manifest.ref.job_id,
            token=HTTPAuthorizationCredentials(scheme="Bearer", credentials=manifest.token),
            body=body,
        )

    def _serve(
        self,
        method: str,
        path: str,
        of: Callable[[Any], Any] = lambda answer: answer,
        **given: Any,
    ) -> Task | None:
        alive = [one for one in self.processes if one.kind == "api" and one.alive]
        if not alive:
            return None
        process = self.world.rng.choice(alive)

        def work() -> Any:
            try:
                return of(self._api.call(method, path, **given))
            except Exception as error:
                self.world.breaks(f"{method} {path} failed with {error!r}")
                raise Crash("500") from error

        return self._begin(process, None, f"{process.kind} {method}", work)

    # The calm

    def _calm(self) -> None:
        world = self.world
        world.note("the chaos run is over")
        world.calm = True
        while self._running:
            self._resume(self._running[0])
        self.processes = [one if one.alive else self._start(one.kind) for one in self.processes]
        self._pass_time(120)
        wait_s, seen = 35.0, -1
        for tick in range(150):
            self._round()
            if tick == 1:
                self.oracle.leaks()
            records = self._ground.records()
            if self.world.broken or not (records.unfinished or records.open or self.people.asking):
                break
            wait_s = 35.0 if records.seen != seen else min(wait_s * 1.7, 7200.0)
            seen = records.seen
            self._pass_time(self._idle_s(wait_s))
        else:
            world.breaks("it does not come to rest")
        for _ in range(2):
            self._pass_time(SETTINGS.sweep_interval_s)
            for process, loop in self._first_replicas():
                while self._has_work(process, loop) and not world.broken:
                    self._tick(process, loop)

    def _round(self) -> None:
        self.people.step_all()
        for process, loop in self._first_replicas():
            if loop.name != "relay" and self._has_work(process, loop):
                self._tick(process, loop)
        for _ in range(3):
            for machine in self.machines():
                if machine.ready:
                    machine.step()

    def _first_replicas(self) -> Iterator[tuple[Process, Any]]:
        done: set[str] = set()
        for process in self.processes:
            if process.kind == "api" or process.kind not in done:
                yield from ((process, loop) for loop in process.loops)
            done.add(process.kind)

    def _stop(self) -> None:
        for running in self._running:
            running.task.kill()
        self._running.clear()
