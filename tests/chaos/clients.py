"""The storm's users: they submit, repeat when unsure, cancel, and write down what they were told."""

from __future__ import annotations

import json
import random
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pika
from pika.exceptions import AMQPError

from tests.chaos.fleet import Fleet

CURSED_TYPE = "t3.nano"


@dataclass
class Wanted:
    """One job as its submitter knows it."""

    key: str
    exit_code: int
    body: dict[str, Any]
    via: str
    job_id: str | None = None
    cancel: bool = False
    cancelled: bool = False


@dataclass
class Ledger:
    """What all submitters were told; safe to share."""

    wanted: list[Wanted] = field(default_factory=list)
    unsure: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def acknowledged(self) -> list[Wanted]:
        """The jobs whose submit was answered with an id."""
        return [one for one in self.wanted if one.job_id]


class Submitters:
    """Submit `count` jobs evenly over `seconds`, over HTTP and as messages."""

    def __init__(
        self, fleet: Fleet, runs: Path, dice: random.Random, *, count: int, seconds: float
    ) -> None:
        self.ledger = Ledger()
        self._fleet = fleet
        self._runs = runs
        self._dice = dice
        self._stop = threading.Event()
        self._pause = seconds / count
        self._count = count
        self._threads = [
            threading.Thread(target=self._submit_all, name="submitter"),
            threading.Thread(target=self._settle, name="settler"),
        ]
        self._unsettled: list[Wanted] = []

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until everything was submitted and answered."""
        self._threads[0].join()
        self._stop.set()
        self._threads[1].join()

    def _submit_all(self) -> None:
        for number in range(self._count):
            wanted = self._make(number)
            with self.ledger.lock:
                self.ledger.wanted.append(wanted)
                self._unsettled.append(wanted)
            if wanted.via == "amqp":
                self._publish(wanted)
            self._stop.wait(self._pause * self._dice.uniform(0.2, 1.8))

    def _make(self, number: int) -> Wanted:
        dice = self._dice
        key = f"storm-{number}-{uuid.UUID(int=dice.getrandbits(128))}"
        code = dice.choice([0, 0, 0, 7, 75])
        runs_s = dice.choice([0, 0.2, 0.5, 1, 3])
        line = f"echo start >> {self._runs}/{key}; sleep {runs_s}; "
        line += f"echo end >> {self._runs}/{key}; exit {code}"
        body: dict[str, Any] = {
            "image": "busybox:1.36",
            "command": ["sh", "-c", line],
            "env": {"VALUE": "one\ntwo $three"},
            "ports": [],
            "timeout_s": 20,
            "infra_retries": 30,
            "backoff_s": 1,
            "labels": {"storm": "yes"},
            "machine": dice.choice([{}, {}, {"market": "spot"}]),
        }
        if dice.random() < 0.04:
            body["machine"] = {"instance_types": [CURSED_TYPE]}
        if dice.random() < 0.2:
            body["max_attempts"] = 2
        if dice.random() < 0.3:
            body["delay_s"] = dice.randrange(1, 20)
        via = "amqp" if dice.random() < 0.25 else "http"
        return Wanted(key, code, body, via, cancel=dice.random() < 0.08)

    def _settle(self) -> None:
        """Ask again, with the same key, until each submit has an answer."""
        while True:
            with self.ledger.lock:
                open_ones = list(self._unsettled)
            if not open_ones and self._stop.is_set():
                return
            for wanted in open_ones:
                self._settle_one(wanted)
            self._stop.wait(0.1) if not self._stop.is_set() else threading.Event().wait(0.2)

    def _settle_one(self, wanted: Wanted) -> None:
        try:
            if wanted.job_id is None:
                answer = httpx.post(
                    f"{self._fleet.api_url}/jobs",
                    json=wanted.body,
                    headers={"Idempotency-Key": wanted.key},
                    timeout=5,
                )
                if answer.status_code not in (200, 201):
                    raise httpx.TransportError(f"{answer.status_code} {answer.text}")
                wanted.job_id = answer.json()["id"]
            if wanted.cancel and not wanted.cancelled:
                answer = httpx.delete(f"{self._fleet.api_url}/jobs/{wanted.job_id}", timeout=5)
                if answer.status_code not in (200, 409):
                    raise httpx.TransportError(str(answer.status_code))
                wanted.cancelled = answer.status_code == 200
                wanted.cancel = wanted.cancelled
        except httpx.HTTPError:
            with self.ledger.lock:
                self.ledger.unsure += 1
            return
        with self.ledger.lock:
            self._unsettled.remove(wanted)

    def _publish(self, wanted: Wanted) -> None:
        """Publish the job; its settler asks over HTTP with the same key what became of it."""
        message = {"type": "job.submit", "v": 1, "job": {**wanted.body, "key": wanted.key}}
        try:
            connection = pika.BlockingConnection(pika.URLParameters(self._fleet.broker_url))
            connection.channel().basic_publish(
                "atemporal", "job.submit", json.dumps(message).encode()
            )
            connection.close()
        except (AMQPError, OSError):
            with self.ledger.lock:
                self.ledger.unsure += 1
