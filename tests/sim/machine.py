"""A machine, as EC2's instances are machines: it boots, asks, runs, reports and powers off, or does not.

Promise: it does what the worker on a real one does, in the same order and with the same words; its
network loses, doubles and delays; it may never boot, die without a word, boot twice, hang, or lose
its network for good. Its own deadline ends it in any case: that part is the operating system's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from atemporal.lead import CLAIM_AHEAD_S
from atemporal.model import AttemptRef
from tests.sim.tasks import Task
from tests.sim.world import NOBODY, World, label

REPORT_FOR_S = 3600
ANSWER_WITHIN_S = 30
REFUSALS = (400, 401, 403, 404, 409, 410, 422)

# One that was never launched, the first of all, a wild card, no id at all.
FORGED = ("i-0123456789abcdef0", f"i-{1:017x}", "*", "localhost")
# What may become of a machine, with how often.
PLANS = {
    "runs": 60,
    "fails to pull": 6,
    "never boots": 4,
    "dies": 12,
    "reboots": 8,
    "hangs": 4,
    "loses its network": 6,
}


@dataclass(frozen=True)
class Manifest:
    """What the user-data says, or what the machine of a group was told; without `ref` it asks."""

    ref: AttemptRef
    token: str
    timeout_s: int
    deadline_s: int
    group: UUID | None = None

    @classmethod
    def read(cls, user_data: bytes) -> Manifest:
        """Read the records of the manifest."""
        _, _, text = user_data.partition(b"\n")
        return cls.of(text)

    @classmethod
    def of(cls, text: bytes) -> Manifest:
        """Read the records themselves."""
        records = dict(one.split("=", 1) for one in text.decode().split("\0") if one)
        if "group" in records:
            group = UUID(records["group"])
            return cls(NOBODY, records["token"], 60, int(records["deadline"]), group)
        job_id, _, number = records["attempt"].partition(".")
        return cls(
            AttemptRef(UUID(job_id), int(number)),
            records["token"],
            int(records["timeout"]),
            int(records["deadline"]),
        )


@dataclass
class Machine:
    """One machine; `step` lets it do what is due."""

    world: World
    instance_id: str
    user_data: bytes
    send: Callable[[str, Manifest, bytes], Task | None]
    power_off: Callable[[str], None]
    runs: dict[AttemptRef, list[str]]
    judge_start: Callable[[AttemptRef], None]
    identity: Callable[[], str]
    console: str = ""
    phase: str = "boot"
    record: dict[str, Any] = field(default_factory=dict)
    asked: Task | None = None

    def __post_init__(self) -> None:
        """Decide what will become of it."""
        world, rng = self.world, self.world.rng
        self.manifest = Manifest.read(self.user_data)
        # Its claims prove nothing: it may call itself anything, and anybody else.
        forges = world.happens("machine forges its id", self.instance_id)
        self.says_id = rng.choice(FORGED) if forges else self.instance_id
        plans = [*PLANS] if not world.calm else ["runs"]
        weights = [*PLANS.values()] if not world.calm else [1]
        (self.plan,) = rng.choices(plans, weights)
        self.exit_code = rng.choice([0, 0, 7])
        self.run_s = rng.choice([5, 60, 60, self.manifest.timeout_s + 500])
        # The agent of a release before this one does not hold: it claims until it is granted.
        self.holds = rng.random() < 0.9
        self.claim = f"claim-{rng.getrandbits(64):x}"
        self.next_at = world.after(rng.choice([20, 45, 200]))
        if forges:
            # It may be nobody's machine: the claim can come before the launcher knows of an instance.
            self.next_at = world.after(rng.choice([0, 1, 20]))
        self.deadline_at = world.after(30 + self.manifest.deadline_s)
        self.dies_at = world.after(rng.choice([10, 60, 300])) if self.plan == "dies" else None
        self.give_up_at: datetime | None = None
        self.ends_at: datetime | None = None
        self.answer_by: datetime | None = None
        if self.plan != "runs":
            world.counts[f"machine {self.plan}"] += 1

    @property
    def booted(self) -> bool:
        """Whether its operating system runs."""
        return self.phase != "boot"

    @property
    def ready(self) -> bool:
        """Whether a step would do something."""
        if self.asked is not None and self.asked.done:
            return True
        return any(at <= self.world.now for at in self.moments())

    def moments(self) -> list[datetime]:
        """When something becomes due."""
        moments = [self.deadline_at]
        if self.dies_at is not None:
            moments.append(self.dies_at)
        if self.asked is not None and self.answer_by is not None:
            moments.append(self.answer_by)
        elif self.phase == "running" and self.plan != "reboots":
            moments += [self.ends_at] if self.ends_at is not None else []
        elif self.plan != "never boots":
            moments.append(self.next_at)
        return moments

    def step(self) -> None:
        """Do what is due."""
        now = self.world.now
        if now >= self.deadline_at:
            self._off("Client.InstanceInitiatedShutdown")
        elif self.dies_at is not None and now >= self.dies_at:
            self._off("Server.InternalError")
        elif self.asked is not None:
            self._listen()
        elif now >= self.next_at and self.plan != "never boots":
            getattr(self, f"_{self.phase}")()

    def shut_down(self) -> None:
        """Stopped from outside: it says how its container ended, as far as time allows."""
        if self.phase == "running" and self.world.rng.random() < 0.5:
            self._ended(exit_code=143, stopped=True)
            self.send("DELETE", self.manifest, self._body())
        self.phase = "off"

    def _off(self, why: str) -> None:
        self.phase = "off"
        self.power_off(why)

    def _boot(self) -> None:
        if self.manifest.group is not None:
            self.phase = "assigning"
            return
        # Its boot callback: sent once, whoever hears it.
        if not self.world.happens("callback lost", self.manifest.ref.id):
            self.send("POST", self.manifest, b"")
        if self.plan == "fails to pull":
            self.record = {"phase": "pull", "exit_code": None}
            self._report_from_now()
        else:
            self.phase = "holding" if self.holds else "claiming"

    def _holding(self) -> None:
        clock = {"synchronised": True, "offset_ms": 0}
        words = {"claim": self.claim, "instance_id": self.says_id, "clock": clock}
        self._ask("PUT", json.dumps(words).encode())

    def _assigning(self) -> None:
        words = {"instance_id": self.says_id, "identity": self.identity()}
        self._ask("ASSIGN", json.dumps(words).encode())

    def _assigned(self, text: bytes) -> None:
        self.manifest = Manifest.of(text)
        self.run_s = min(self.run_s, self.manifest.timeout_s + 500)
        self.world.note(f"{self.instance_id} is told {label(self.manifest.ref)}")
        self.phase = "boot"

    def _claiming(self) -> None:
        words = {"claim": self.claim, "instance_id": self.says_id, "holds": self.holds}
        self._ask("PATCH", json.dumps(words).encode())

    def _granted(self) -> None:
        ref, world = self.manifest.ref, self.world
        self.judge_start(ref)
        started = self.runs.setdefault(ref, [])
        started.append(f"{self.instance_id} {self.claim}")
        world.counts["containers started"] += 1
        world.note(f"{self.instance_id} starts the container of {label(ref)}")
        if len(started) > 1:
            world.breaks(f"the container of {label(ref)} was started twice: {started}")
        if self.holds and not world.happens("callback lost", ref.id):
            at = {"started_at": world.now.isoformat()}
            self.send("POST", self.manifest, json.dumps(at).encode())
        self.phase = "running"
        self.next_at = world.after(3)
        self.ends_at = None if self.plan == "hangs" else world.after(self.run_s)

    def _running(self) -> None:
        if self.plan == "reboots":
            # It has lost its memory of having been here, and is another claimant.
            self.plan = "runs"
            self.claim += "-again"
            self.phase = "claiming"
        elif self.ends_at is not None and self.world.now >= self.ends_at:
            late = self.run_s > self.manifest.timeout_s
            self._ended(exit_code=137 if late else self.exit_code, timed_out=late)
            self._report_from_now()

    def _ended(self, **how: Any) -> None:
        self.record = {"phase": "run", **how}
        self._console()

    def _report_from_now(self) -> None:
        self._console()
        self.phase = "reporting"
        self.give_up_at = self.world.after(REPORT_FOR_S)

    def _reporting(self) -> None:
        if self.give_up_at is not None and self.world.now >= self.give_up_at:
            self._off("Client.InstanceInitiatedShutdown")
        else:
            self._ask("DELETE", self._body())

    def _console(self) -> None:
        words = {**self.record, "claim": self.claim, "instance_id": self.says_id}
        self.console += f"\natemporal-exit {self.manifest.ref.id} {json.dumps(words)}\n"

    def _body(self) -> bytes:
        words = {"claim": self.claim, "instance_id": self.says_id, "log_tail": ""}
        return json.dumps({**self.record, **words}).encode()

    def _ask(self, method: str, body: bytes) -> None:
        world = self.world
        deaf = self.plan == "loses its network" and method == "DELETE"
        if deaf or world.happens("callback lost", self.manifest.ref.id):
            self.next_at = world.after(ANSWER_WITHIN_S)
            return
        if world.happens("callback doubled", self.manifest.ref.id):
            self.send(method, self.manifest, body)
        self.asked = self.send(method, self.manifest, body)
        self.answer_by = world.after(ANSWER_WITHIN_S)
        if self.asked is None:
            self.next_at = world.after(2)

    def _listen(self) -> None:
        asked, world = self.asked, self.world
        assert asked is not None
        assert self.answer_by is not None
        if not asked.done:
            if world.now >= self.answer_by:
                self.asked = None
            return
        self.asked = None
        status: HTTPStatus | None
        answer: Any
        status, answer = asked.result or (None, None)
        if status is None or world.happens("callback answer lost", self.manifest.ref.id):
            self.next_at = world.after(2)
        elif status == HTTPStatus.NO_CONTENT and self.phase == "holding":
            self._hold(answer)
        elif status == HTTPStatus.NO_CONTENT and self.phase == "claiming":
            self.phase = "granted"
            self.next_at = world.after(answer.start_in_ms / 1000 if self.holds else 0)
        elif status == HTTPStatus.NO_CONTENT and self.phase == "assigning":
            if answer.status_code == HTTPStatus.OK:
                self._assigned(bytes(answer.body))
            elif answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self.next_at = world.after(5)
            else:
                world.note(f"{self.instance_id} has no job ({answer.status_code})")
                self._off("Client.InstanceInitiatedShutdown")
        elif status == HTTPStatus.NO_CONTENT:
            self._reported()
        elif status in REFUSALS:
            world.note(f"{self.instance_id} of {label(self.manifest.ref)} is refused ({status})")
            self._off("Client.InstanceInitiatedShutdown")
        else:
            self.next_at = world.after(5)

    def _hold(self, answer: Any) -> None:
        if answer.hold_ms == 0:
            self.phase = "claiming"
            return
        # In the calm nothing changes meanwhile, and steps are few.
        calm_s = answer.start_in_ms / 1000 - CLAIM_AHEAD_S if self.world.calm else 0
        self.next_at = self.world.after(max(answer.hold_ms / 1000, calm_s))
        self.world.counts["holds"] += 1

    def _reported(self) -> None:
        self._off("Client.InstanceInitiatedShutdown")
