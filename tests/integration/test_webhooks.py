"""Webhooks on a real Postgres and real receivers: at least once, in order, whoever is slow or away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.errors import Unavailable
from atemporal.model.webhook import Webhook, WebhookSpec, WebhookState
from atemporal.store import deliveries, retention, webhooks
from atemporal.store.database import Database
from atemporal.webhook import retry
from atemporal.webhook.address import networks
from atemporal.webhook.sender import Sender, resolve
from services.scheduler.webhooks import WebhookLoop
from tests.api import until
from tests.integration.history import KIND, happen, made, no_events, numbers, once
from tests.integration.receivers import Target, receiving
from tests.servers.postgres import Postgres

LOOPBACK = networks(["127.0.0.0/8"])
_MADE: list[WebhookLoop] = []
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_left(database: Database) -> Iterator[None]:
    yield
    while _MADE:
        _MADE.pop().reset()
    with database.begin() as tx:
        tx.execute(text("DELETE FROM webhooks"))
    no_events(database)


def a_loop(database: Database, **given: Any) -> WebhookLoop:
    how = {"allowed": LOOPBACK, "http": True, "interval_s": 0.02, "chance": lambda: 0.5}
    made = WebhookLoop(database, **{**how, **given})
    _MADE.append(made)
    return made


@pytest.fixture
def loop(database: Database) -> WebhookLoop:
    return a_loop(database)


def hooked(database: Database, url: str, name: str = "ci", **fields: Any) -> str:
    """Make a webhook; return its secret."""
    with database.begin() as tx:
        return webhooks.create(tx, WebhookSpec(name=name, url=url, **fields))[1]


def get(database: Database, name: str = "ci") -> Webhook:
    with database.begin() as tx:
        return webhooks.get(tx, name)


def run(loop: WebhookLoop, done: Callable[[], bool], within_s: float = 60) -> None:
    """Let the loop tick until it is done."""
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(min(loop.tick(), 0.02))
    # What was sent is settled too.
    while loop._running or loop._testing:
        loop.tick()
    loop.tick()


def hasten(database: Database) -> None:
    """The pauses are over."""
    with database.begin() as tx:
        tx.execute(text("UPDATE webhooks SET try_at = now()"))
        tx.execute(text("UPDATE webhook_deliveries SET next_at = now() WHERE next_at IS NOT NULL"))


def failing(database: Database, many: int) -> Callable[[], bool]:
    return lambda: get(database).failures == many


def more_than(target: Target, many: int) -> Callable[[], bool]:
    return lambda: len(target.got) > many


def has_result(database: Database) -> bool:
    tested = get(database).tested
    return tested is not None and tested.result is not None


def after(seconds: float) -> Callable[[int], int]:
    """An answer that takes its time."""

    def answer(_number: int) -> int:
        time.sleep(seconds)
        return 204

    return answer


def settled(database: Database, name: str = "ci") -> Callable[[], bool]:
    def none_pending() -> bool:
        webhook = get(database, name)
        with database.begin() as tx:
            left = tx.scalar(
                text("SELECT count(*) FROM events WHERE id > :p"), {"p": webhook.position}
            )
        return not webhook.pending and not left

    return none_pending


class TestSending:
    def test_what_fits_is_sent_signed_and_in_order(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        with receiving() as target:
            secret = hooked(database, target.url, labels={"team": "blue"}, types=("attempt",))
            blue = made(database, 3, labels={"team": "blue", "x": "y"})
            happen(database, [*blue, *made(database, 3, labels={"team": "red"})], *range(15))
            run(loop, settled(database))
            target.verify(secret)
        assert numbers(target.accepted) == {str(one): list(range(15)) for one in blue}
        assert len(target.got) == 45
        first = target.got[0]
        assert first.path == "/hook?k=v"
        assert first.headers["content-type"] == "application/json"
        assert first.headers["webhook-id"] == f"event.{first.event['event_id']}"
        assert {one.event["type"] for one in target.got} == {KIND}

    def test_what_happened_before_is_not_sent(self, database: Database, loop: WebhookLoop) -> None:
        ids = made(database)
        happen(database, ids, 1)
        with receiving() as target:
            hooked(database, target.url)
            happen(database, ids, 2)
            run(loop, settled(database))
        assert numbers(target.accepted) == {str(ids[0]): [2]}

    def test_a_failure_is_sent_again_with_the_same_id_and_holds_up_its_own_job_alone(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        bad, good = made(database, 2)
        with receiving() as target:
            secret = hooked(database, target.url)
            broken = True

            def answer(number: int) -> int:
                event = target.got[number].event
                return 500 if broken and event["job_id"] == str(bad) else 204

            target.answer = answer
            happen(database, [bad, good], 1, 2, 3)
            run(loop, lambda: len(target.accepted) == 3 and get(database).last_error is not None)
            assert numbers(target.accepted) == {str(good): [1, 2, 3]}
            assert "answers 500" in str(get(database).last_error)
            broken = False
            hasten(database)
            run(loop, settled(database))
            target.verify(secret)
        assert numbers(target.accepted) == {str(one): [1, 2, 3] for one in (bad, good)}
        ids = Counter(one.headers["webhook-id"] for one in target.got)
        assert sorted(ids.values()) == [1, 1, 1, 1, 1, 2]

    def test_a_redirect_is_a_failure_and_is_not_followed(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database)
        with receiving() as elsewhere, receiving() as target:
            target.answer = lambda _n: (307, {"Location": elsewhere.url}, b"")
            hooked(database, target.url)
            happen(database, ids, 1)
            run(loop, lambda: get(database).failures == 1)
        assert elsewhere.got == []
        assert get(database).last_error == (
            "the receiver answers 307, a redirect, which is not followed"
        )

    def test_an_address_that_is_not_public_is_refused(self, database: Database) -> None:
        ids = made(database)
        asked: list[str] = []
        addresses: list[str] = []

        def resolver(host: str, _port: int) -> list[str]:
            asked.append(host)
            return addresses

        with receiving() as target:
            port = target.url.rpartition(":")[2]
            hooked(database, f"http://hooks.example.com:{port}")
            happen(database, ids, 1)
            for addresses in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"]):
                loop = a_loop(database, sender=sender_of(resolver, allowed=()))
                before = get(database).failures
                run(loop, failing(database, before + 1))
                assert addresses[-1] in str(get(database).last_error)
                hasten(database)
            assert target.got == []
            # The same name, and the network is allowed: asked once, and connected to what was checked.
            asked.clear()
            addresses = ["127.0.0.1"]
            loop = a_loop(database, sender=sender_of(resolver))
            run(loop, settled(database))
        assert asked == ["hooks.example.com"]
        assert target.got[0].headers["host"].startswith("hooks.example.com:")

    def test_a_url_that_the_settings_refuse_by_now_is_not_called(self, database: Database) -> None:
        ids = made(database)
        with receiving() as target:
            hooked(database, target.url)
            happen(database, ids, 1)
            run(a_loop(database, http=False), lambda: get(database).failures == 1)
        assert target.got == []
        assert "is without TLS" in str(get(database).last_error)

    def test_an_answer_without_end_is_not_read_and_one_without_haste_is_not_awaited(
        self, database: Database
    ) -> None:
        ids = made(database)
        with receiving() as target:
            target.answer = lambda _n: (200, {}, b"x" * 5_000_000)
            hooked(database, target.url)
            happen(database, ids, 1)
            run(a_loop(database), settled(database))
            target.answer = after(1.5)
            happen(database, ids, 2)
            began = time.monotonic()
            loop = a_loop(database, sender=sender_of(total_s=0.3))
            run(loop, lambda: get(database).failures == 1)
            assert time.monotonic() - began < 1.4
        assert get(database).last_error == "the receiver did not answer in time"

    def test_what_nobody_foresaw_is_one_receivers_matter(self, database: Database) -> None:
        ids = made(database)
        with receiving() as target:
            hooked(database, "http://a..b/", "broken")
            hooked(database, f"http://{'x' * 64}.example.com/", "long")
            hooked(database, target.url)
            happen(database, ids, 1)

            def resolver(host: str, port: int) -> Any:
                if host == "a..b":
                    raise KeyError("of a library")
                return resolve(host, port)

            loop = a_loop(database, sender=sender_of(resolver))
            run(loop, settled(database))
            run(loop, lambda: bool(get(database, "broken").failures))
            run(loop, lambda: bool(get(database, "long").failures))
        assert "nobody foresaw" in str(get(database, "broken").last_error)
        assert "its name can not be one" in str(get(database, "long").last_error)

    def test_one_that_drips_is_cut_off(self, database: Database) -> None:
        ids = made(database)
        with socket.create_server(("127.0.0.1", 0)) as server:

            def drip() -> None:
                connection, _ = server.accept()
                with connection:
                    try:
                        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
                            connection.sendall(bytes([byte]))
                            time.sleep(0.05)
                    except OSError:
                        return

            thread = threading.Thread(target=drip)
            thread.start()
            hooked(database, f"http://127.0.0.1:{server.getsockname()[1]}/")
            happen(database, ids, 1)
            began = time.monotonic()
            loop = a_loop(database, sender=sender_of(total_s=0.5))
            run(loop, lambda: get(database).failures == 1)
            assert time.monotonic() - began < 5
            thread.join()

    @pytest.mark.parametrize(
        ("answer", "repeated"),
        [
            (b"SSH-2.0-of-another-service\r\n", 1),
            (b"HTTP/1.1 102 Processing\r\n\r\n", 1_000_000),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000, 1),
        ],
    )
    def test_what_does_not_end_or_is_no_answer_is_cut_off_and_never_shown(
        self, database: Database, answer: bytes, repeated: int
    ) -> None:
        ids = made(database)
        with socket.create_server(("127.0.0.1", 0)) as server:

            def talk() -> None:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    for _ in range(repeated):
                        connection.sendall(answer)
                    # It stays open, and says no more.
                    connection.recv(1 << 20)
                    connection.recv(1 << 20)

            thread = threading.Thread(target=talk)
            thread.start()
            hooked(database, f"http://127.0.0.1:{server.getsockname()[1]}/")
            happen(database, ids, 1)
            began = time.monotonic()
            loop = a_loop(database, sender=sender_of(total_s=3.0))
            run(loop, lambda: not get(database).pending or get(database).failures == 1)
            assert time.monotonic() - began < 20
            loop.reset()
            thread.join()
        assert get(database).last_error in (None, "what answers does not speak HTTP/1.1")

    def test_a_thread_that_can_not_be_started_takes_no_slot(
        self, database: Database, loop: WebhookLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none_left(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        ids = made(database)
        with receiving() as target:
            hooked(database, target.url)
            happen(database, ids, 1)
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", none_left)
                for _ in range(5):
                    hasten(database)
                    with pytest.raises(RuntimeError):
                        loop.tick()
            hasten(database)
            run(loop, settled(database))


def sender_of(
    resolver: Callable[[str, int], Any] | None = None, **given: Any
) -> Callable[[], Any]:
    how = {"allowed": LOOPBACK, "resolver": resolver or resolve}
    return lambda: Sender(**{**how, **given})


class TestOthers:
    def test_a_slow_receiver_holds_up_nobody_else(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database, 40)
        release = threading.Event()
        with receiving() as slow, receiving() as quick:
            slow.answer = lambda _n: (release.wait(20), 204)[1]
            for number in range(6):
                hooked(database, slow.url, f"slow-{number}")
            hooked(database, quick.url, "quick")
            happen(database, ids, *range(5))
            try:
                run_while(loop, lambda: len(quick.accepted) == 200)
                # All six have some, and none has more than its share.
                assert 6 <= len(slow.got) <= 16
                assert max(loop._running.values()) <= 4
            finally:
                release.set()
            run(loop, lambda: all(settled(database, f"slow-{n}")() for n in range(6)))
        assert len(slow.accepted) == 6 * 200
        assert numbers(quick.accepted) == {str(one): list(range(5)) for one in ids}

    def test_one_that_is_gone_is_asked_ever_less_often_and_loses_nothing(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database, 30)
        with receiving() as target:
            port = int(target.url.split(":")[2].split("/")[0])
        hooked(database, target.url)
        happen(database, ids, 1, 2)
        run(loop, lambda: get(database).failures >= retry.PATIENT)
        webhook = get(database)
        assert webhook.state is WebhookState.FAILING
        assert webhook.failures < 10
        assert (webhook.try_at - webhook.updated_at).total_seconds() > 3
        for _ in range(20):
            loop.tick()
        assert get(database).failures == webhook.failures
        with database.begin() as tx:
            assert webhooks.oldest_pending_s(tx) > 0
            tx.execute(text("UPDATE webhooks SET try_at = now()"))
        with receiving(port) as target:
            run(loop, lambda: len(target.accepted) >= 50)
            hasten(database)
            run(loop, settled(database))
        assert numbers(once(target.accepted)) == {str(one): [1, 2] for one in ids}
        assert get(database).state is WebhookState.ACTIVE

    def test_postgres_away_in_the_middle(
        self, database: Database, postgres_server: Postgres
    ) -> None:
        ids = made(database, 20)
        with receiving() as target:
            hooked(database, target.url)
            happen(database, ids, *range(5))
            loop = a_loop(database)
            target.answer = after(0.02)
            while len(target.accepted) < 20:
                loop.tick()
            postgres_server.stop()
            try:
                with pytest.raises(Unavailable):
                    run_while(loop, lambda: False)
                loop.reset()
            finally:
                postgres_server.start()
            until(lambda: ticked(loop) and settled(database)())
        assert numbers(once(target.accepted)) == {str(one): list(range(5)) for one in ids}
        # What had been sent was settled afterwards, and not sent again.
        assert len(target.got) == 100


def run_while(loop: WebhookLoop, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        loop.tick()


def ticked(loop: WebhookLoop) -> bool:
    try:
        loop.tick()
    except Unavailable:
        loop.reset()
    return not loop._running


class TestGivingUp:
    def test_after_about_a_day_of_tries_it_is_given_up_and_can_be_sent_again(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        bad, good = made(database, 2)
        before = REGISTRY.get_sample_value(
            "atemporal_webhook_deliveries_total", {"result": "given_up"}
        )
        with receiving() as target:
            hooked(database, target.url)

            def answer(number: int) -> int:
                event = target.got[number].event
                return 500 if event["detail"]["n"] == 1 and event["job_id"] == str(bad) else 204

            target.answer = answer
            happen(database, [bad, good], 1, 2, 3)
            for _ in range(len(retry.PAUSES_S) + 1):
                with database.begin() as tx:
                    assert deliveries.failed(tx, "ci", limit=10) == []
                tried = len(target.got)
                run(loop, more_than(target, tried))
                hasten(database)
            run(loop, settled(database))
            # Given up, and those behind it went on.
            assert numbers(target.accepted) == {str(good): [1, 2, 3], str(bad): [2, 3]}
            with database.begin() as tx:
                (dead,) = deliveries.failed(tx, "ci", limit=10)
                assert (dead.job_id, dead.failures) == (bad, 13)
                assert json.loads(dead.body)["detail"] == {"n": 1}
                assert "500" in str(dead.last_error)
                assert deliveries.retry(tx, "ci", [dead.event_id + 100_000]) == 0
                assert deliveries.retry(tx, "ci", [dead.event_id]) == 1
            target.answer = lambda _n: 204
            run(loop, settled(database))
        assert numbers(target.accepted)[str(bad)] == [2, 3, 1]
        counted = REGISTRY.get_sample_value(
            "atemporal_webhook_deliveries_total", {"result": "given_up"}
        )
        assert (counted or 0) - (before or 0) == 1
        assert get(database).failed == 0

    def test_what_was_given_up_long_ago_is_deleted(self, database: Database) -> None:
        ids = made(database)
        hooked(database, "https://example.com")
        happen(database, ids, 1, 2)
        with database.begin() as tx:
            assert deliveries.make(tx, upto=10**9) is not None
            tx.execute(
                text(
                    "UPDATE webhook_deliveries SET next_at = NULL, dead_at = now() - interval '2 days'"
                    " WHERE next_at IS NOT NULL"
                )
            )
            assert retention.delete_old_deliveries(tx, keep_s=3 * 86_400, limit=10) == 0
            assert retention.delete_old_deliveries(tx, keep_s=86_400, limit=10) == 1

    def test_after_three_days_without_a_success_it_is_disabled_and_keeps_what_is_pending(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database, 3)
        with receiving() as target:
            target.answer = lambda _n: 503
            hooked(database, target.url)
            happen(database, ids, 1)
            run(loop, lambda: get(database).failures >= 3)
            with database.begin() as tx:
                tx.execute(text("UPDATE webhooks SET failing_since = now() - interval '73 hours'"))
            hasten(database)
            run(loop, lambda: get(database).disabled_at is not None)
            webhook = get(database)
            assert webhook.state is WebhookState.DISABLED
            assert "answers 503" in str(webhook.disabled_why)
            assert webhook.pending == 3
            loop._gauges_at = 0.0
            loop.tick()
            assert REGISTRY.get_sample_value("atemporal_webhooks_disabled") == 1
            happen(database, ids, 2)
            hasten(database)
            asked = len(target.got)
            for _ in range(5):
                loop.tick()
            assert len(target.got) == asked
            target.answer = lambda _n: 204
            with database.begin() as tx:
                webhooks.resume(tx, "ci")
            run(loop, settled(database))
        assert numbers(target.accepted) == {str(one): [1, 2] for one in ids}

    def test_one_that_wants_no_more_is_disabled_at_once(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database)
        with receiving() as target:
            target.answer = lambda _n: 410
            hooked(database, target.url)
            happen(database, ids, 1)
            run(loop, lambda: get(database).state is WebhookState.DISABLED)
        assert "410" in str(get(database).disabled_why)

    def test_what_a_receiver_asks_for_is_heeded(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database)
        with receiving() as target:
            target.answer = lambda _n: (429, {"Retry-After": "1800"}, b"")
            hooked(database, target.url)
            happen(database, ids, 1)
            run(loop, lambda: get(database).failures == 1)
        with database.begin() as tx:
            left = tx.scalar(text("SELECT extract(epoch FROM try_at - now()) FROM webhooks"))
        assert 1700 < float(left or 0) <= 1800

    @pytest.mark.parametrize("status", [429, 410])
    def test_what_it_asks_for_beside_one_that_it_accepts_is_heeded_too(
        self, database: Database, loop: WebhookLoop, status: int
    ) -> None:
        ids = made(database)
        with receiving() as target:
            refusal = (status, {"Retry-After": "1800"}, b"")
            target.answer = lambda number: refusal if number else 204
            hooked(database, target.url)
            happen(database, ids, 1, 2)
            run(loop, lambda: get(database).last_error is not None)
        with database.begin() as tx:
            left = tx.scalar(text("SELECT extract(epoch FROM try_at - now()) FROM webhooks"))
        assert 1700 < float(left or 0) <= 1800
        assert (get(database).state is WebhookState.DISABLED) is (status == 410)

    @pytest.mark.parametrize("resumed", [True, False])
    def test_time_in_which_nothing_was_tried_is_no_time_without_a_success(
        self, database: Database, loop: WebhookLoop, resumed: bool
    ) -> None:
        ids = made(database)
        with receiving() as target:
            target.answer = lambda _n: 503
            hooked(database, target.url)
            happen(database, ids, 1)
            run(loop, lambda: get(database).failures == 1)
            with database.begin() as tx:
                tx.execute(text("UPDATE webhooks SET failing_since = now() - interval '4 days'"))
                if resumed:
                    webhooks.pause(tx, "ci")
                    webhooks.resume(tx, "ci")
                else:
                    ago = "last_error_at = now() - interval '13 hours'"
                    tx.execute(text(f"UPDATE webhooks SET {ago}"))
            hasten(database)
            run(loop, lambda: len(target.got) > 1)
        assert get(database).disabled_at is None


class TestPeople:
    def test_pause_and_resume(self, database: Database, loop: WebhookLoop) -> None:
        ids = made(database)
        with receiving() as target:
            hooked(database, target.url)
            with database.begin() as tx:
                webhooks.pause(tx, "ci")
            happen(database, ids, 1, 2)
            for _ in range(3):
                loop.tick()
            assert target.got == []
            with database.begin() as tx:
                webhooks.resume(tx, "ci")
            run(loop, settled(database))
            assert numbers(target.accepted) == {str(ids[0]): [1, 2]}
            with database.begin() as tx:
                webhooks.pause(tx, "ci")
            happen(database, ids, 3)
            with database.begin() as tx:
                webhooks.resume(tx, "ci", skip=True)
            happen(database, ids, 4)
            run(loop, settled(database))
        assert numbers(target.accepted) == {str(ids[0]): [1, 2, 4]}

    def test_a_resume_leaves_what_is_on_its_way_to_who_sends_it(self, database: Database) -> None:
        ids = made(database)
        hooked(database, "https://example.com")
        happen(database, ids, 1)
        with database.begin() as tx:
            while (done := deliveries.make(tx, upto=2**62)) is not None and done.more:
                pass
        with database.begin() as tx:
            (receiver,) = deliveries.receivers(tx)
            assert deliveries.claim(tx, receiver, limit=1, lease_s=webhooks.LEASE_S)
        with database.begin() as tx:
            webhooks.resume(tx, "ci")
            assert deliveries.claim(tx, receiver, limit=1, lease_s=webhooks.LEASE_S) == []

    def test_a_test_is_sent_once_by_a_scheduler_also_while_it_is_paused(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        with receiving() as target:
            secret = hooked(database, target.url)
            with database.begin() as tx:
                webhooks.pause(tx, "ci")
                webhooks.ask_test(tx, "ci")
            run(loop, lambda: has_result(database))
            target.verify(secret)
            for _ in range(3):
                loop.tick()
        (got,) = target.got
        assert got.event["type"] == "webhook.test"
        assert got.headers["webhook-id"].startswith("test.")
        tested = get(database).tested
        assert tested is not None
        assert (tested.accepted, tested.result) == (True, "accepted")

    def test_after_a_rotation_both_secrets_can_tell(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database)
        with receiving() as target:
            old = hooked(database, target.url)
            with database.begin() as tx:
                new = webhooks.rotate_secret(tx, "ci")[1]
            happen(database, ids, 1)
            run(loop, settled(database))
            target.verify(old)
            target.verify(new)
            with database.begin() as tx:
                tx.execute(text("UPDATE webhooks SET old_secret_until = now()"))
            target.got.clear()
            happen(database, ids, 2)
            run(loop, settled(database))
            target.verify(new)
            (got,) = target.got
            assert got.headers["webhook-signature"].count("v1,") == 1

    def test_a_delete_ends_it_also_while_something_is_sent(
        self, database: Database, loop: WebhookLoop
    ) -> None:
        ids = made(database)
        with receiving() as target:
            release = threading.Event()
            target.answer = lambda _n: (release.wait(20), 204)[1]
            hooked(database, target.url)
            happen(database, ids, 1, 2)
            run_while(loop, lambda: len(target.got) == 1)
            with database.begin() as tx:
                assert webhooks.remove(tx, "ci").pending == 2
            release.set()
            while loop._running:
                loop.tick()
        with database.begin() as tx:
            assert tx.scalar(text("SELECT count(*) FROM webhook_deliveries")) == 0

    def test_a_job_is_kept_until_an_active_webhook_has_heard_of_it(
        self, database: Database
    ) -> None:
        hooked(database, "https://example.com")
        made(database, 2)
        with database.begin() as tx:
            tx.execute(text("UPDATE events SET relayed = true"))
            tx.execute(
                text(
                    "UPDATE jobs SET state = 'finished', outcome = 'cancelled',"
                    " finished_at = now() - interval '1 year'"
                )
            )
            assert retention.delete_finished(tx, keep_s=60, limit=10) == 0
            hear = "UPDATE webhooks SET position = (SELECT max(id) FROM events) WHERE name = 'ci'"
            tx.execute(text(hear))
            with tx.begin_nested() as heard:
                # The newest job stays for who follows the listing.
                assert retention.delete_finished(tx, keep_s=60, limit=10) == 1
                heard.rollback()
            webhooks.create(tx, WebhookSpec(name="late", url="https://example.com"))
            tx.execute(text("UPDATE webhooks SET position = 0 WHERE name = 'late'"))
            assert retention.delete_finished(tx, keep_s=60, limit=10) == 0
            webhooks.pause(tx, "late")
            assert retention.delete_finished(tx, keep_s=60, limit=10) == 1


PROCESS = """
import sys, time
from atemporal.store.database import Database
from atemporal.webhook.address import networks
from atemporal.webhook.sender import Sender, resolve
from services.scheduler.webhooks import WebhookLoop
loop = WebhookLoop(Database(sys.argv[1]), allowed=networks(["127.0.0.0/8"]), http=True,
                   interval_s=0.05, lease_s=2.0)
while True:
    time.sleep(min(loop.tick(), 0.05))
"""


# Thousands of requests want processor time, of which a busy machine has little. None is measured here.
BUSY_S = 150


def test_ten_thousand_events_the_receiver_away_in_the_middle_and_schedulers_that_are_killed(
    database: Database, database_url: str
) -> None:
    ids = made(database, 1000)
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        words = [sys.executable, "-c", PROCESS, database_url]
        processes.append(
            subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        )

    heard: list[dict[str, Any]] = []
    try:
        with receiving() as target:
            port = int(target.url.split(":")[2].split("/")[0])
            secret = hooked(database, target.url)
            happen(database, ids, *range(10))
            start()
            start()
            until(lambda: len(target.accepted) > 2000, within_s=BUSY_S)
            # Both in the middle of what they send.
            for process in processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
            start()
            until(lambda: len(target.accepted) > 4000, within_s=BUSY_S)
            target.verify(secret)
        # Connections of before may still be served.
        heard += target.accepted
        until(lambda: get(database).failures >= retry.PATIENT)
        with receiving(port) as target:
            hasten(database)
            until(lambda: hastened(database) and settled(database)(), within_s=BUSY_S)
            target.verify(secret)
        heard += target.accepted
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert numbers(once(heard)) == {str(one): list(range(10)) for one in ids}
    # A death costs what was being sent, and no more.
    assert len(heard) < 10_000 + 500


def hastened(database: Database) -> bool:
    """Whoever failed while the receiver was away is due; a lease stays as it is."""
    with database.begin() as tx:
        tx.execute(
            text(
                "UPDATE webhook_deliveries SET next_at = now()"
                " WHERE failures > 0 AND next_at > now() + interval '3 seconds'"
            )
        )
    time.sleep(0.3)
    return True


def test_only_the_first_delivery_of_a_job_can_be_on_its_way(database: Database) -> None:
    ids = made(database)
    hooked(database, "https://example.com")
    happen(database, ids, 1, 2)
    with database.begin() as tx:
        assert deliveries.make(tx, upto=10**9) is not None
        first = [row.next_at is not None for row in tx.execute(_IN_ORDER)]
    assert first == [True, False]


_IN_ORDER = text("SELECT next_at FROM webhook_deliveries ORDER BY event_id")
