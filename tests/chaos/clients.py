"""The chaos run's users: they submit, repeat when unsure, cancel, and write down what they were told."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pika
from pika.exceptions import AMQPError
from sqlalchemy import text

from atemporal.clock import format_utc
from atemporal.errors import AtemporalError
from tests.chaos.crew import Crew
from tests.chaos.exits import SAY
from tests.chaos.fleet import Fleet
from tests.chaos.governor import TEAM, TEAM_LABEL

CURSED_TYPE = "t3.nano"
CURSED_EVERY = 20
# Each so-many-th job has a secret.
SECRET_EVERY = 3
# How long after the chaos run a confirmed message may take to become a job.
LOOK_UP_S = 120.0


@dataclass
class Wanted:
    """One job as its submitter knows it.

    `confirmed`: the broker confirmed its message; `left_alone`: it is then left to that message,
    looked up in the database and never submitted again. `retime_s`: it is given another time, so many
    seconds from then.
    """

    key: str
    exit_code: int
    body: dict[str, Any]
    via: str
    job_id: str | None = None
    cancel: bool = False
    cancelled: bool = False
    left_alone: bool = False
    confirmed: bool = False
    retime_s: int | None = None


@dataclass
class Receipts:
    """What all submitters were told; safe to share."""

    wanted: list[Wanted] = field(default_factory=list)
    unanswered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def acknowledged(self) -> list[Wanted]:
        """The jobs whose submit was answered with an id."""
        return [one for one in self.wanted if one.job_id]


class Submitters(Crew):
    """Submit `count` jobs evenly over `seconds`, over HTTP and as messages."""

    def __init__(
        self, fleet: Fleet, runs: Path, rng: random.Random, *, count: int, seconds: float
    ) -> None:
        super().__init__()
        self.receipts = Receipts()
        self._fleet = fleet
        self._runs = runs
        self._rng = rng
        self._stop = threading.Event()
        self._pause = seconds / count
        self._count = count
        self.add("submitter", self._submit_all)
        self.add("settler", self._settle)
        self._unsettled: list[Wanted] = []

    def _submit_all(self) -> None:
        try:
            for number in range(self._count):
                wanted = self._make(number)
                with self.receipts.lock:
                    self.receipts.wanted.append(wanted)
                if wanted.via == "amqp":
                    self._publish(wanted)
                # Only now it is clear who is to settle it.
                with self.receipts.lock:
                    self._unsettled.append(wanted)
                self._stop.wait(self._pause * self._rng.uniform(0.2, 1.8))
        finally:
            self._stop.set()

    def _make(self, number: int) -> Wanted:
        rng = self._rng
        key = f"chaos-{number}-{uuid.UUID(int=rng.getrandbits(128))}"
        code = rng.choice([0, 0, 0, 7, 75])
        runs_s = rng.choice([0, 0.2, 0.5, 1, 3])
        start, end = (SAY.format(what=what, path=self._runs / key) for what in ("start", "end"))
        # Whoever kills the sleep has cut the container short.
        line = f"{start}; sleep {runs_s} || exit; {end}; exit {code}"
        body: dict[str, Any] = {
            "image": "busybox:1.36",
            "command": ["sh", "-c", line],
            "env": {"VALUE": "one\ntwo $three"},
            "ports": [],
            "timeout_s": 20,
            "infra_retries": 30,
            "backoff_s": 1,
            "labels": {"chaos": "yes", **({TEAM_LABEL: TEAM} if rng.random() < 0.3 else {})},
            "machine": rng.choice([{}, {}, {"capacity_type": "spot"}]),
        }
        if number % CURSED_EVERY == CURSED_EVERY // 2:
            body["machine"] = {"instance_types": [CURSED_TYPE]}
        if number % SECRET_EVERY == 0:
            # By claim, also where it is launched alone; without its secret its end is another.
            body["secrets"] = {"KEY": key}
            body["command"][2] = f'test "$KEY" = {key} || exit 99; {line}'
        if rng.random() < 0.2:
            body["max_attempts"] = 2
        if rng.random() < 0.3:
            body["delay_s"] = rng.randrange(1, 20)
        elif rng.random() < 0.5:
            # Many are due at once, so that one call can launch them.
            body["time"] = format_utc(datetime.fromtimestamp(time.time() // 15 * 15 + 18, UTC))
        via = "amqp" if rng.random() < 0.25 else "http"
        cancel, left_alone = rng.random() < 0.08, via == "amqp" and rng.random() < 0.5
        retime_s = rng.randrange(15) if "delay_s" in body and rng.random() < 0.4 else None
        return Wanted(
            key, code, body, via, cancel=cancel, left_alone=left_alone, retime_s=retime_s
        )

    def _settle(self) -> None:
        """Ask again, with the same key, until each submit has an answer."""
        give_up_at = None
        while True:
            with self.receipts.lock:
                open_ones = list(self._unsettled)
            if self._stop.is_set():
                give_up_at = give_up_at or time.monotonic() + LOOK_UP_S
                if time.monotonic() > give_up_at:
                    # Lost; the verdict says so.
                    open_ones = [one for one in open_ones if not _left_to_message(one)]
                if not open_ones:
                    return
            for wanted in open_ones:
                self._settle_one(wanted)
            threading.Event().wait(0.2)

    def _settle_one(self, wanted: Wanted) -> None:
        try:
            if wanted.job_id is None:
                wanted.job_id = (
                    self._look_up(wanted) if _left_to_message(wanted) else self._submit(wanted)
                )
                if wanted.job_id is None:
                    return
            if wanted.retime_s is not None:
                job = f"{self._fleet.api_url}/jobs/{wanted.job_id}"
                answer = httpx.patch(job, json={"delay_s": wanted.retime_s}, timeout=5)
                if answer.status_code not in (200, 409):
                    raise httpx.TransportError(str(answer.status_code))
                wanted.retime_s = None
            if wanted.cancel:
                answer = httpx.delete(f"{self._fleet.api_url}/jobs/{wanted.job_id}", timeout=5)
                if answer.status_code not in (200, 409):
                    raise httpx.TransportError(str(answer.status_code))
                wanted.cancelled = answer.status_code == 200
        except httpx.HTTPError:
            with self.receipts.lock:
                self.receipts.unanswered += 1
            return
        with self.receipts.lock:
            self._unsettled.remove(wanted)

    def _submit(self, wanted: Wanted) -> str:
        answer = httpx.post(
            f"{self._fleet.api_url}/jobs",
            json=wanted.body,
            headers={"Idempotency-Key": wanted.key},
            timeout=5,
        )
        if answer.status_code not in (200, 201):
            raise httpx.TransportError(f"{answer.status_code} {answer.text}")
        return str(answer.json()["id"])

    def _look_up(self, wanted: Wanted) -> str | None:
        try:
            with self._fleet.database.begin() as tx:
                found = tx.scalar(
                    text("SELECT id FROM jobs WHERE key = :key"), {"key": wanted.key}
                )
        except AtemporalError:
            return None
        return str(found) if found else None

    def _publish(self, wanted: Wanted) -> None:
        """Publish the job; without a confirm it is submitted over HTTP too, with the same key."""
        message = {"type": "job.submit", "v": 1, "job": {**wanted.body, "key": wanted.key}}
        try:
            connection = pika.BlockingConnection(pika.URLParameters(self._fleet.broker_url))
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(
                "atemporal",
                "job.submit",
                json.dumps(message).encode(),
                pika.BasicProperties(delivery_mode=2),
                mandatory=True,
            )
            wanted.confirmed = True
            connection.close()
        except (AMQPError, OSError):
            with self.receipts.lock:
                self.receipts.unanswered += 1


def _left_to_message(wanted: Wanted) -> bool:
    return wanted.left_alone and wanted.confirmed
