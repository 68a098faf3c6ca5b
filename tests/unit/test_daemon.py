"""How a loop fares in its thread, and how a daemon stops that is held up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from threading import Event

import httpx
import pytest

from atemporal.daemon import Runner
from atemporal.errors import Kept, Refused, Unavailable
from atemporal.health import HealthServer

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
