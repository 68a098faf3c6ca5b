"""The life of a daemon: loops in threads, signals, health and metrics.

Promise: SIGTERM or SIGINT lets each loop end the tick in hand, within `stop_within_s` seconds, and
then the process ends, whatever its threads wait for; a second signal exits at once. A loop whose
database or broker is away, at start or later, keeps trying and works again by itself; with `Kept` it
says that its messages are still in hand. After any other failure it drops its connections. Each is
in the log and in a metric; the work is in Postgres and nothing is lost by it. No loop runs on
a database that is older than this release.
Mechanism: a loop's `tick` waits no longer than about a second before it returns, so a stop is seen
soon; between ticks a loop sleeps on the stop event. The main thread only waits for signals.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Protocol

from atemporal import __version__, memory, telemetry
from atemporal.errors import AtemporalError, Kept, Unavailable, Unknown
from atemporal.health import HealthServer
from atemporal.metrics import Aggregate, counter, gauge, series
from atemporal.settings import Settings, load
from atemporal.store.database import Database
from atemporal.telemetry import logger
from atemporal.unknown_settings import unknown_variables

TICKS = counter("atemporal_ticks_total", "Ticks that ended, well or not, by their loop.", loop=())
TICK_ERRORS = counter(
    "atemporal_tick_errors_total",
    "Failures of ticks: what they need was unavailable, or an error that nobody foresaw.",
    loop=(),
    kind=["unavailable", "error"],
)
LAST_TICK = gauge(
    "atemporal_last_tick_timestamp_seconds",
    "When a loop last ended a tick, 0 if never.",
    aggregate=Aggregate.MAX,
    loop=(),
)
LAST_SUCCESS = gauge(
    "atemporal_last_success_timestamp_seconds",
    "When a loop last ended a tick with success, 0 if never.",
    aggregate=Aggregate.MAX,
    loop=(),
)

_BACKOFF_S = (0.1, 5.0)
# A failure that goes on is repeated in the log so often, not with each tick.
_REMINDER_S = 60.0


class Loop(Protocol):
    """Work that is done again and again."""

    name: str

    def tick(self) -> float:
        """Do what there is to do, waiting about a second at most; return seconds until the next."""

    def reset(self) -> None:
        """Drop connections and whatever else a failed tick may have left behind."""


class Runner:
    """One loop in its thread, and how it fares."""

    def __init__(
        self, loop: Loop, stop: threading.Event, *, check: Callable[[], None] | None = None
    ) -> None:
        """Prepare; `start` begins. `check` has to pass once before the first tick."""
        self.loop = loop
        self._check = check
        self.last_tick_at = monotonic()
        self.healthy = False
        self.error = ""
        """Why the last tick failed; empty when it went well, or there was none yet."""
        self._failing_since: float | None = None
        self._reminder_at = 0.0
        self._stop = stop
        self._log = logger(loop.name)
        series(TICKS, loop=[loop.name])
        series(TICK_ERRORS, loop=[loop.name])
        series(LAST_TICK, loop=[loop.name])
        series(LAST_SUCCESS, loop=[loop.name])
        self._thread = threading.Thread(target=self._run, name=loop.name, daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the last tick; return whether it came."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _run(self) -> None:
        backoff = _BACKOFF_S[0]
        while not self._stop.is_set():
            pause = self._one_tick()
            if pause is None:
                pause, backoff = backoff, min(backoff * 2, _BACKOFF_S[1])
            else:
                backoff = _BACKOFF_S[0]
            self._stop.wait(pause)
        self.loop.reset()

    def _one_tick(self) -> float | None:
        try:
            if self._check is not None:
                self._check()
                self._check = None
            pause = self.loop.tick()
        except Exception as error:  # noqa: BLE001 - a daemon outlives any one tick
            self._failed(error)
            if not isinstance(error, Kept):
                self.loop.reset()
            pause = None
        else:
            self._went_well()
        self.last_tick_at = monotonic()
        TICKS.labels(self.loop.name).inc()
        LAST_TICK.labels(self.loop.name).set_to_current_time()
        return pause

    def _failed(self, error: Exception) -> None:
        # A server that goes away in the middle of a call leaves it unknown: an outage as well.
        kind = "unavailable" if isinstance(error, Unavailable | Unknown) else "error"
        TICK_ERRORS.labels(self.loop.name, kind).inc()
        before, now = self.error, monotonic()
        self.healthy = False
        if isinstance(error, AtemporalError):
            self.error = str(error)
            if self.error != before or now >= self._reminder_at:
                self._log.warning("tick failed", error=self.error)
                self._reminder_at = now + _REMINDER_S
        else:
            self.error = "an error that nobody foresaw: the log has it"
            self._log.exception("tick failed")
        if self._failing_since is None:
            self._failing_since = now

    def _went_well(self) -> None:
        LAST_SUCCESS.labels(self.loop.name).set_to_current_time()
        if self._failing_since is not None:
            after_s = round(monotonic() - self._failing_since, 1)
            self._log.info("ticks again", after_s=after_s)
        self.healthy, self.error, self._failing_since = True, "", None


class Daemon:
    """A process of loops."""

    def __init__(
        self,
        name: str,
        loops: Sequence[Loop],
        *,
        stop_within_s: float = 25.0,
        health_host: str = "127.0.0.1",
        health_port: int = 0,
        on_exit: Callable[[], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing runs yet. `check` is what each loop has to pass before its first tick."""
        self.name = name
        self.stop = threading.Event()
        self.runners = [Runner(loop, self.stop, check=check) for loop in loops]
        self._stop_within_s = stop_within_s
        self._health_address = (health_host, health_port)
        self._on_exit = on_exit
        self._log = logger(name)

    def run(self) -> int:
        """Run until a signal; return the process's exit status, 0.

        If a tick had to be cut this does not return: the process exits with status 1.

        Raises:
            Refused: the health port can not be listened on.
        """
        health_server = HealthServer(self.runners, *self._health_address)
        with self._signals() as signals, health_server as health:
            self._log.info("started", health=health.url)
            self.start()
            # Not by `Event.wait`: a signal that comes just before the lock is waited for would not
            # end the wait, and one that comes inside `wait` would find the event's own lock taken.
            while not self.stop.is_set():
                select.select([signals], [], [], 1.0)
            cut = self.join()
        if cut:
            self._log.error("stopped before the work in hand ended", loops=cut)
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            # An orderly exit would wait for the threads of a pool, and with them for EC2.
            os._exit(1)
        if self._on_exit:
            self._on_exit()
        self._log.info("stopped")
        return 0

    def start(self) -> None:
        """Start the loops and return."""
        for runner in self.runners:
            runner.start()

    def join(self) -> list[str]:
        """Wait for the loops' last ticks; return the names of those that did not end in time."""
        deadline = monotonic() + self._stop_within_s
        return [
            runner.loop.name for runner in self.runners if not runner.join(deadline - monotonic())
        ]

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Heed signals; yield a socket that can be read once one has come."""
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)
            signal.set_wakeup_fd(writer.fileno())
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            try:
                yield reader
            finally:
                signal.set_wakeup_fd(-1)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set():
            os._exit(128 + number)
        self.stop.set()


def serve(
    name: str, description: str, build: Callable[[Settings, Database], Sequence[Loop]]
) -> None:
    """The whole main program of a daemon: settings, logging, loops, exit status."""
    parser = argparse.ArgumentParser(
        prog=f"atemporal-{name}",
        description=description,
        epilog="It is configured by ATEMPORAL_* environment variables; `atemporal config` lists "
        "them with their effective values.",
    )
    parser.add_argument("--version", action="version", version=f"atemporal {__version__}")
    parser.parse_args()
    memory.one_arena()
    try:
        settings = load()
        telemetry.configure(name, log_format=settings.log_format, level=settings.log_level)
        for sentence in unknown_variables(os.environ):
            logger("settings").warning("unknown setting", error=sentence)
        database = Database(
            settings.database_url.get_secret_value(),
            application=f"atemporal {name}",
            on_unreadable=telemetry.tell_unreadable,
        )
        daemon = Daemon(
            name,
            build(settings, database),
            stop_within_s=settings.stop_within_s,
            health_host=settings.health_host,
            health_port=settings.health_port,
            on_exit=database.dispose,
            check=database.check_schema,
        )
        memory.settle()
        status = daemon.run()
    except AtemporalError as error:
        parser.exit(2, f"atemporal-{name} can not start: {error}\n")
    sys.exit(status)
