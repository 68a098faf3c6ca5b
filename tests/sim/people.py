"""Who uses the simulated system: clients with a job each, and perhaps a planner with a schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from uuid import UUID

from fastapi import Response

from atemporal.broker import Outgoing
from atemporal.messages import COMMANDS
from tests.sim.broker import Broker
from tests.sim.client import Client
from tests.sim.database import Ground
from tests.sim.oracle import Oracle
from tests.sim.planner import Planner
from tests.sim.tasks import Task
from tests.sim.world import World

# A reply is sent once: who misses it asks again, with the same key.
PATIENCE_S = 400


class People:
    """All that ask for something; what they ask over HTTP goes through `serve`."""

    def __init__(
        self,
        world: World,
        ground: Ground,
        broker: Broker,
        oracle: Oracle,
        serve: Callable[..., Task | None],
    ) -> None:
        """Think of what they want; nothing is asked yet."""
        self._world = world
        self._ground = ground
        self._broker = broker
        self._oracle = oracle
        self._serve = serve
        rng = world.rng
        self.clients = [Client.of(number, rng) for number in range(rng.choice([1, 1, 2, 3]))]
        self.planner = Planner.of(rng) if rng.random() < 0.3 else None
        if rng.random() < 0.4:
            # Due together and of one shape, so that one call may launch them.
            self.clients += [
                self.clients[0].alike(len(self.clients) + number)
                for number in range(rng.choice([1, 2, 4]))
            ]

    @property
    def asking(self) -> bool:
        """Whether somebody has not got what they want yet."""
        unpaused = self.planner is not None and not self.planner.paused
        return unpaused or any(one.job_id is None for one in self.clients)

    def begin(self) -> None:
        """Make the schedule; most of the clients ask at once."""
        if self.planner is not None:
            self.planner.make(self._ground)
        for client in self.clients:
            if self._world.rng.random() < 0.7:
                self.step(client)

    def step_all(self) -> None:
        """Everybody does one thing."""
        for client in self.clients:
            self.step(client)
        if self.planner is not None:
            self.plan()

    def step(self, client: Client) -> None:
        """One client asks, looks for its answer, or changes its mind."""
        if client.job_id is None:
            self._answers(client)
        if client.job_id is None:
            (self._submit_message if client.by_message else self._submit_call)(client)
        elif not self._world.calm and self._world.rng.random() < 0.15:
            self._cancel(client)
        elif not self._world.calm and self._world.rng.random() < 0.15:
            self._retime(client)

    def _submit_message(self, client: Client) -> None:
        if client.again_at is not None:
            # The broker took it: from here others answer for the job, though not for the reply.
            if self._world.now < client.again_at:
                return
            self._oracle.confirmed(client)
        body = json.dumps({"type": "job.submit", "v": 1, "job": client.fields}).encode()
        out = Outgoing("job.submit", body, client.key, COMMANDS, correlation_id=client.key)
        if self._broker.take(out, reply_to="replies"):
            client.again_at = self._world.after(PATIENCE_S)

    def _submit_call(self, client: Client) -> None:
        if client.asked is not None and not client.asked.done:
            return
        client.asked = self._serve(
            "POST",
            "/jobs",
            request=SimpleNamespace(headers={"content-type": "application/json"}),
            response=Response(),
            actor="client",
            body=json.dumps(client.fields).encode(),
            idempotency_key=client.key,
        )

    def plan(self) -> None:
        """The planner changes its schedule; in the calm it pauses it."""
        planner = self.planner
        assert planner is not None
        planner.heard()
        if planner.asked is not None or (self._world.calm and planner.paused):
            return
        (method, path), given = planner.next(self._world.rng, last=self._world.calm)
        planner.asked_for = (method, path)
        planner.asked = self._serve(method, "/schedules/{name}" + path, **given)

    def _answers(self, client: Client) -> None:
        for reply in self._broker.replies:
            fields = json.loads(reply.body)
            if reply.correlation_id == client.key and fields.get("id"):
                client.job_id = UUID(fields["id"])
        asked = client.asked
        if asked is not None and asked.done and asked.result is not None:
            status, view = asked.result
            if status < 300 and not self._world.happens("callback answer lost", "submit"):
                client.job_id = UUID(str(view.id))
            client.asked = None

    def _cancel(self, client: Client) -> None:
        if client.cancelling is None:
            client.cancelling = self._serve(
                "DELETE", "/jobs/{job_id}", job_id=client.job_id, actor="client"
            )
        elif client.cancelling.done:
            if client.cancelling.result is not None and client.cancelling.result[0] < 300:
                client.cancelled = True
            else:
                client.cancelling = None

    def _retime(self, client: Client) -> None:
        """Give the job another time; nobody waits for the answer."""
        seconds = self._world.rng.choice([0, 3, 30, 300, 1000])
        self._world.counts["jobs rescheduled"] += 1
        self._serve(
            "PATCH",
            "/jobs/{job_id}",
            job_id=client.job_id,
            actor="client",
            body=json.dumps({"delay_s": seconds}).encode(),
        )
