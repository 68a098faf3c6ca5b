"""How a loop fares in its thread, and how a daemon stops that is held up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from threading import Event
from urllib.parse import urlsplit

import httpx
import pytest
import structlog.testing

from atemporal import daemon, health
from atemporal.daemon import LAST_SUCCESS, LAST_TICK, TICK_ERRORS, Runner
from atemporal.errors import Kept, Refused, Unavailable, Unknown
from atemporal.health import HealthServer
from atemporal.settings import Settings

HELD_UP = """
import time
from atemporal.daemon import Daemon
from services.launcher.calls import Calls

class Hanging:
    def call(self, attempt, spec):
        print("called", flush=True)
        time.sleep(60)

class Loop:
    name = "launch"
    calls = Calls(Hanging())
    def tick(self):
        self.calls.make([(None, None)] * 32)
        return 1.0
    def reset(self):
        self.calls.cancel()

raise SystemExit(Daemon("launcher", [Loop()], stop_within_s=0.5).run())
"""


class OneTurn:
    """Fails its first tick, and then asks its thread to end."""

    name = "one"

    def __init__(self, error: Exception) -> None:
        self.stop = Event()
        self.error = error
        self.calls: list[str] = []

    def tick(self) -> float:
        self.calls.append("tick")
        if self.calls.count("tick") == 2:
            self.stop.set()
            return 0.0
        raise self.error

    def reset(self) -> None:
        self.calls.append("reset")


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (Kept("Postgres is away"), ["tick", "tick", "reset"]),
        (Unavailable("RabbitMQ is away"), ["tick", "reset", "tick", "reset"]),
        (Refused("never"), ["tick", "reset", "tick", "reset"]),
        (RuntimeError("a mistake"), ["tick", "reset", "tick", "reset"]),
    ],
)
def test_a_loop_keeps_its_messages_over_a_failed_tick_only_where_the_error_is_kept(
    error: Exception, calls: list[str]
) -> None:
    loop = OneTurn(error)
    runner = Runner(loop, loop.stop)
    runner.start()
    assert runner.join(10)
    assert loop.calls == calls


def test_a_loop_does_not_tick_before_the_check_has_passed_once() -> None:
    loop = OneTurn(Refused("never"))
    checks = iter([Unavailable("run `atemporal db upgrade`"), None])

    def check() -> None:
        loop.calls.append("check")
        if error := next(checks):
            raise error

    runner = Runner(loop, loop.stop, check=check)
    runner.start()
    assert runner.join(10)
    assert loop.calls == ["check", "reset", "check", "tick", "reset", "tick", "reset"]


def test_a_daemon_stops_while_a_call_hangs() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD_UP],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        assert any(line == b"called\n" for line in process.stdout), "it ended before its tick"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=20)
        assert time.monotonic() - begun < 10
        assert process.returncode == 1
        assert b"stopped before the work in hand ended" in log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("age_s", "status"), [(200, 200), (301, 503)])
def test_healthz_allows_a_tick_as_long_as_an_ec2_that_hangs_makes_it(
    age_s: float, status: int
) -> None:
    loop = OneTurn(RuntimeError())
    runner = Runner(loop, loop.stop)
    runner.last_tick_at -= age_s
    with HealthServer([runner], "127.0.0.1", 0) as health:
        assert httpx.get(f"{health.url}/healthz").status_code == status


class Failing:
    """Fails in these ways one after the other, then ticks well, then asks its thread to end."""

    name = "failing"

    def __init__(self, *errors: Exception) -> None:
        self.stop = Event()
        self._errors = iter(errors)
        self.seen: list[str] = []
        self.runner: Runner | None = None

    def tick(self) -> float:
        assert self.runner is not None
        self.seen.append(self.runner.error)
        error = next(self._errors, None)
        if error is not None:
            raise error
        if not self.runner.error and self.runner.healthy:
            self.stop.set()
        return 0.0

    def reset(self) -> None:
        """Nothing is held."""


def ticks_of(*errors: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[Failing, list[str]]:
    """Run a loop that fails so; returns it and its log as `event: error`."""
    monkeypatch.setattr(daemon, "_BACKOFF_S", (0.0, 0.0))
    loop = Failing(*errors)
    loop.runner = Runner(loop, loop.stop)
    with structlog.testing.capture_logs() as logs:
        loop.runner.start()
        assert loop.runner.join(30)
    return loop, [f"{line['event']}: {line.get('error', '')}" for line in logs]


def test_a_failed_tick_is_no_success() -> None:
    """By its last success a loop is found that fails for ever; by its last tick it is not."""
    loop = OneTurn(Refused("never"))
    runner = Runner(loop, loop.stop)
    at = {gauge: gauge.labels("one")._value for gauge in (LAST_TICK, LAST_SUCCESS)}
    for value in at.values():
        value.set(0)
    runner._one_tick()
    assert at[LAST_TICK].get() > 0
    assert at[LAST_SUCCESS].get() == 0
    runner._one_tick()
    assert at[LAST_SUCCESS].get() > 0


def test_an_outage_is_in_the_log_once_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    away = [Unavailable("RabbitMQ is away")] * 30
    loop, lines = ticks_of(*away, Unavailable("Postgres is away"), monkeypatch=monkeypatch)
    assert lines == [
        "tick failed: RabbitMQ is away",
        "tick failed: Postgres is away",
        "ticks again: ",
    ]
    assert loop.seen == ["", *["RabbitMQ is away"] * 30, "Postgres is away", ""]


def test_an_outage_that_goes_on_is_repeated_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_REMINDER_S", 0.0)
    _, lines = ticks_of(*[Unavailable("away")] * 3, monkeypatch=monkeypatch)
    assert lines == ["tick failed: away"] * 3 + ["ticks again: "]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unavailable("away"), "unavailable"),
        (Unknown("RabbitMQ did not confirm"), "unavailable"),
        (Refused("never"), "error"),
        (RuntimeError("a mistake"), "error"),
    ],
)
def test_a_server_that_goes_away_is_no_error_that_nobody_foresaw(
    error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[str, float]:
        kinds = ("unavailable", "error")
        return {k: TICK_ERRORS.labels("failing", k)._value.get() for k in kinds}

    before = counted()
    ticks_of(error, monkeypatch=monkeypatch)
    after = counted()
    assert {k for k in after if after[k] > before[k]} == {kind}


def test_readyz_says_why_a_daemon_can_not_work() -> None:
    loop = Failing()
    runner = Runner(loop, loop.stop)
    runner.error = "Postgres refuses us"
    with HealthServer([runner], "127.0.0.1", 0) as health:
        answer = httpx.get(f"{health.url}/readyz", trust_env=False)
    assert answer.status_code == 503
    assert answer.json()["loops"]["failing"]["error"] == "Postgres refuses us"


def test_a_health_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=rf"port {port}.*ATEMPORAL_HEALTH_PORT"):
            HealthServer([], "127.0.0.1", port)


def test_who_connects_to_the_health_port_and_says_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health._Handler, "timeout", 0.1)
    with HealthServer([], "127.0.0.1", 0) as server:
        address = urlsplit(server.url)
        silent = socket.create_connection((address.hostname, address.port), timeout=60)
        with contextlib.closing(silent):
            silent.sendall(b"GET /healthz HTTP/1.1\r\n")
            assert silent.recv(1) == b""


def test_what_listens_is_for_this_machine_unless_an_operator_says_otherwise() -> None:
    listens = {
        name: field.default for name, field in Settings.model_fields.items() if "host" in name
    }
    listens.pop("host_paths")
    assert listens == {"api_host": "127.0.0.1", "health_host": "127.0.0.1"}
    with HealthServer([], listens["health_host"], 0) as server:
        assert urlsplit(server.url).hostname == "127.0.0.1"
