"""The loop that sends events to the receivers of webhooks.

Promise: each event that a webhook wants is sent until its receiver accepts it, at least once, or is
given up after about a day; the events of a job are sent one after the other. A receiver that is slow,
away or wrong holds up nobody else's events, and is asked ever less often.
Mechanism: deliveries are made and claimed in Postgres; each claim, one job's deliveries in a row, has a
thread to itself, and what came of it is settled by this loop. A webhook has a few threads at most, and
all beyond its first one only while half of all are free; one that fails has a single one.
Failure: what a process that died had claimed is due again after a minute; what it had sent and could
not settle is sent again, with the same id. While Postgres is away nothing is sent.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol
from uuid import UUID

from atemporal.clock import format_utc
from atemporal.errors import AtemporalError
from atemporal.metrics import Aggregate, counter, gauge
from atemporal.model.webhook import Delivery, Receiver, Sent
from atemporal.store import deliveries, webhooks
from atemporal.store.database import Database
from atemporal.store.horizon import Horizon
from atemporal.store.webhooks import LEASE_S
from atemporal.telemetry import logger
from atemporal.webhook import signature
from atemporal.webhook.address import Network, split
from atemporal.webhook.answer import Answer
from atemporal.webhook.retry import PATIENT

ACCEPTED, FAILED, GIVEN_UP = "accepted", "failed", "given_up"
DELIVERIES = counter(
    "atemporal_webhook_deliveries_total",
    "Requests to receivers of webhooks: accepted, failed and tried again, failed and given up.",
    result=[ACCEPTED, FAILED, GIVEN_UP],
)
OLDEST = gauge(
    "atemporal_webhook_oldest_pending_seconds",
    "Time since the oldest event happened that an active webhook has not delivered, or 0.",
    aggregate=Aggregate.MAX,
)
DISABLED = gauge(
    "atemporal_webhooks_disabled",
    "Webhooks that are disabled: they failed for too long.",
    aggregate=Aggregate.MAX,
)

MOST, EACH = 16, 4
# After that no further delivery of the same claim is begun; with the last one it stays within the lease.
_RUN_S = 20.0
_GAUGES_S = 15.0
_WAIT_S = 0.5
_IDLE = 2
_GONE = 410


class Sends(Protocol):
    """Who makes requests, from any number of threads."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a body; whatever goes wrong is in the answer."""

    def close(self) -> None:
        """Close what is kept."""


@dataclass(frozen=True)
class _Over:
    """A thread's work: the deliveries of a claim, or a test."""

    webhook_id: UUID
    sent: Sequence[Sent] = ()
    test_id: UUID | None = None
    answer: Sent | None = None


class WebhookLoop:
    """Makes deliveries of events, and sends them."""

    name = "webhooks"

    def __init__(
        self,
        database: Database,
        *,
        allowed: Sequence[Network],
        http: bool,
        interval_s: float,
        lease_s: float = LEASE_S,
        sender: Callable[[], Sends] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take where one may send to; nothing is connected yet.

        `sender` makes who sends, when there is something to be sent; `chance` spreads retries.
        """
        self._database = database
        self._allowed = allowed
        self._http = http
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._make_sender = sender or self._usual_sender
        self._sender: Sends | None = None
        self._chance = chance
        self._horizon = Horizon()
        self._over: SimpleQueue[_Over] = SimpleQueue()
        self._ended: list[_Over] = []
        self._running: Counter[UUID] = Counter()
        self._testing: set[UUID] = set()
        self._gauges_at = 0.0
        self._log = logger(self.name)

    def tick(self) -> float:
        """Settle what has ended, make deliveries, begin to send what is due."""
        self._collect(0.0)
        self._settle()
        self._set_gauges()
        with self._database.begin() as tx:
            if not webhooks.any_there(tx):
                return _IDLE * self._interval_s
            settled = self._horizon.settled(tx)
        behind = self._make(settled)
        self._begin()
        if self._running or self._testing:
            self._collect(_WAIT_S)
            return 0.0
        return 0.0 if behind else self._interval_s

    def reset(self) -> None:
        """Settle what ends in a moment, and close connections.

        What a process that stops could not settle is sent again, by who claims it next.
        """
        try:
            self._collect(_WAIT_S if self._running or self._testing else 0.0)
            self._settle()
        except AtemporalError as error:
            self._log.warning("deliveries not settled", error=str(error))
        if self._sender is not None and not (self._running or self._testing):
            self._sender.close()
            self._sender = None

    def _usual_sender(self) -> Sends:
        # With its library a few megabytes, which nobody needs who has no webhook.
        from atemporal.webhook.sender import Sender

        return Sender(allowed=self._allowed, most=MOST)

    def _make(self, upto: int) -> bool:
        """Make a batch for each webhook that is behind; tell whether there is more for one."""
        done: set[UUID] = set()
        more = False
        while True:
            with self._database.begin() as tx:
                made = deliveries.make(tx, upto=upto, but=done)
            if made is None:
                return more
            done.add(made.webhook_id)
            more |= made.more

    def _begin(self) -> None:
        with self._database.begin() as tx:
            receivers = deliveries.receivers(tx)
        for receiver in receivers:
            full = self._running.total() + len(self._testing) >= MOST
            test_id = receiver.test_id
            if test_id is not None and test_id not in self._testing and not full:
                self._start(self._test, receiver)
                self._testing.add(test_id)
            slots = self._slots(receiver)
            if not receiver.ready or not slots:
                continue
            with self._database.begin() as tx:
                runs = deliveries.claim(tx, receiver, limit=slots, lease_s=self._lease_s)
            for run in runs:
                # Counted once it has begun: where no thread can be started nothing is kept.
                self._start(self._run, receiver, run)
                self._running[receiver.webhook_id] += 1

    def _slots(self, receiver: Receiver) -> int:
        """How many more threads a receiver may have."""
        mine, free = self._running[receiver.webhook_id], MOST - self._running.total()
        if free <= 0:
            return 0
        wanted = (1 if receiver.failures >= PATIENT else EACH) - mine
        beyond = max(0, free - MOST // 2)
        return max(0, min(wanted, beyond if mine else max(1, beyond)))

    def _start(self, work: Callable[..., _Over], receiver: Receiver, *given: object) -> None:
        if self._sender is None:
            self._sender = self._make_sender()

        def whole() -> None:
            self._over.put(work(receiver, *given))

        threading.Thread(target=whole, name="webhook", daemon=True).start()

    def _run(self, receiver: Receiver, run: Sequence[Delivery]) -> _Over:
        """Send a job's deliveries, one after the other, up to the first that fails."""
        ends_at = monotonic() + _RUN_S
        sent: list[Sent] = []
        for one in run:
            sent.append(self._post(receiver, one.message_id, one.body, one))
            if not sent[-1].accepted or monotonic() > ends_at:
                break
        return _Over(receiver.webhook_id, sent)

    def _test(self, receiver: Receiver) -> _Over:
        at = format_utc(datetime.now(UTC))
        body = {"type": "webhook.test", "v": 1, "webhook": receiver.name, "at": at}
        answer = self._post(receiver, f"test.{receiver.test_id}", json.dumps(body), None)
        return _Over(receiver.webhook_id, test_id=receiver.test_id, answer=answer)

    def _post(
        self, receiver: Receiver, message_id: str, body: str, delivery: Delivery | None
    ) -> Sent:
        event_id, job_id = (delivery.event_id, delivery.job_id) if delivery else (0, UUID(int=0))
        try:
            # It was made when the settings may have been others.
            split(receiver.url, http=self._http)
        except ValueError as error:
            return Sent(event_id, job_id, False, f"its URL {error}")
        try:
            assert self._sender is not None
            headers = signature.headers(receiver.secrets, message_id, datetime.now(UTC), body)
            answer = self._sender.post(receiver.url, headers, body.encode())
        except Exception:  # noqa: BLE001 - one receiver's matter, and no other's
            self._log.exception("not sent", webhook=receiver.name, id=message_id)
            return Sent(event_id, job_id, False, "an error that nobody foresaw: the log has it")
        return Sent(
            event_id,
            job_id,
            answer.accepted,
            answer.text,
            asked_s=answer.asked_s,
            unwanted=answer.status == _GONE,
        )

    def _collect(self, wait_s: float) -> None:
        """Take what has ended; wait for the first of it."""
        try:
            while True:
                self._ended.append(
                    self._over.get(timeout=wait_s) if wait_s else self._over.get_nowait()
                )
                wait_s = 0.0
        except Empty:
            return

    def _settle(self) -> None:
        """Write down what has ended; what could not be written is kept for the next tick."""
        while self._ended:
            webhook_id = self._ended[0].webhook_id
            mine = [one for one in self._ended if one.webhook_id == webhook_id]
            sent = [each for one in mine for each in one.sent]
            with self._database.begin() as tx:
                done = deliveries.settle(tx, webhook_id, sent, chance=self._chance())
                for one in mine:
                    if one.test_id is not None and one.answer is not None:
                        result = one.answer.error or "accepted"
                        accepted = one.answer.accepted
                        webhooks.tested(tx, one.test_id, accepted=accepted, result=result)
            self._ended = [one for one in self._ended if one.webhook_id != webhook_id]
            self._forget(mine)
            self._tell(done, sent)

    def _forget(self, over: Sequence[_Over]) -> None:
        for one in over:
            if one.test_id is not None:
                self._testing.discard(one.test_id)
            else:
                self._running[one.webhook_id] -= 1
        self._running = +self._running

    def _tell(self, done: deliveries.Settled, sent: Sequence[Sent]) -> None:
        accepted = sum(one.accepted for one in sent)
        given_up = set(done.given_up)
        DELIVERIES.labels(ACCEPTED).inc(accepted)
        DELIVERIES.labels(FAILED).inc(len(sent) - accepted - len(given_up))
        DELIVERIES.labels(GIVEN_UP).inc(len(given_up))
        for one in sent:
            if one.event_id in given_up:
                self._log.error(
                    "delivery given up",
                    webhook=done.name,
                    job=str(one.job_id),
                    number=one.event_id,
                    error=one.error,
                )
        if done.disabled is not None:
            self._log.error("webhook disabled", webhook=done.name, error=done.disabled)

    def _set_gauges(self) -> None:
        now = monotonic()
        if now >= self._gauges_at:
            with self._database.begin() as tx:
                OLDEST.set(webhooks.oldest_pending_s(tx))
                DISABLED.set(webhooks.disabled(tx))
            self._gauges_at = now + _GAUGES_S
