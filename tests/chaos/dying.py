"""A service of the real code that counts its effects and dies before or after a chosen one.

Promise: the service runs its own `main`; an effect is a commit that wrote something, a publish, an
acknowledgement, a take of tokens, a call to EC2. Each is written down before it is done, with the loop
that did it. At its point the process is gone at once (`os._exit`), as with kill -9: nothing is closed,
nothing told.
Mechanism: a forked child of a process that has imported everything, so that it starts in no time.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from atemporal.broker import Delivery, Link, Outgoing
from atemporal.cloud import Cloud
from atemporal.errors import Unavailable
from atemporal.rate_limits import RateLimits
from atemporal.store import attempts
from atemporal.store.database import Database

DIED = 137
_PR_SET_PDEATHSIG = 1
_NOTIFICATIONS = ("job.due", "job.cancel", "instance.running", "instance.exited")


class Point(NamedTuple):
    """Before or after the `number`th effect of its kind in a loop."""

    loop: str
    kind: str
    number: int
    when: str


class Service(NamedTuple):
    """What to run: `deaf` services lose every message, a `mute` API takes no exit."""

    name: str
    env: Mapping[str, str]
    log: str
    effects: str | None = None
    death: Point | None = None
    deaf: bool = False
    mute: bool = False


def run(service: Service) -> None:
    """Be the service; called in a fresh child."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.environ.clear()
    os.environ.update(service.env)
    log = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # First: that it loses messages is none of its effects.
    if service.deaf:
        _deafen()
    if service.effects:
        _Effects(service.effects, service.death).install()
    if service.mute:
        _mute()
    sys.argv = [service.name]
    runpy.run_module(f"services.{service.name}", run_name="__main__")


class _Effects:
    def __init__(self, file: str, death: Point | None) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._death = death
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def effect(self, kind: str) -> Iterator[None]:
        loop = _loop()
        with self._lock:
            self._counts[loop, kind] += 1
            number = self._counts[loop, kind]
        os.write(self._file, f"{loop}\t{kind}\t{number}\n".encode())
        self._die_at(Point(loop, kind, number, "before"))
        yield
        self._die_at(Point(loop, kind, number, "after"))

    def _die_at(self, point: Point) -> None:
        if point == self._death:
            os._exit(DIED)

    def install(self) -> None:
        begin = Database.begin

        @contextmanager
        def counted_begin(database: Database) -> Iterator[Connection]:
            with _opened(begin(database)) as (tx, commit):
                yield tx
                wrote = tx.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL"))
                if wrote:
                    with self.effect("commit"):
                        commit()

        setattr(Database, "begin", counted_begin)  # noqa: B010 - mypy sees a method here
        # What is sent may be confirmed much later: a death has its place in between, too.
        self._count(Link, "send", lambda messages, **_: messages and f"publish {_key(messages)}")
        self._count(Link, "settle", lambda *given, **_: given and "confirm")
        self._count(Link, "ack", lambda batch: batch and "ack")
        self._count(RateLimits, "take", lambda *given, **_: given and "take")
        for name in ("run", "run_group", "tag", "terminate", "console", "describe"):
            self._count(Cloud, name, lambda *given, _name=name: given and f"ec2 {_name}")

    def _count(self, owner: type, name: str, kind_of: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def counted(self_: Any, *given: Any, **more: Any) -> Any:
            kind = kind_of(*given)
            if not kind:
                return original(self_, *given, **more)
            with self.effect(kind):
                return original(self_, *given, **more)

        setattr(owner, name, counted)


@contextmanager
def _opened(transaction: Any) -> Iterator[tuple[Connection, Callable[[], None]]]:
    """Enter a transaction's context; its commit is done by the call, not at the end of the block."""
    committed = False

    def commit() -> None:
        nonlocal committed
        committed = True
        transaction.__exit__(None, None, None)

    tx = transaction.__enter__()
    try:
        yield tx, commit
    except BaseException as error:
        if committed or not transaction.__exit__(type(error), error, error.__traceback__):
            raise
    else:
        if not committed:
            transaction.__exit__(None, None, None)


def _loop() -> str:
    name = threading.current_thread().name.split("_")[0]
    return "http" if name.startswith("AnyIO") else name


def _key(messages: Sequence[Outgoing]) -> str:
    key = messages[0].routing_key if messages[0].exchange else "reply"
    return key if key in (*_NOTIFICATIONS, "reply") else "event"


def _deafen() -> None:
    receive, ack = Link.receive, Link.ack

    def nothing(link: Link, queue: str, **how: Any) -> list[Delivery]:
        ack(link, receive(link, queue, **how))
        return []

    setattr(Link, "receive", nothing)  # noqa: B010


def _mute() -> None:
    def refuse(*_: Any, **__: Any) -> bool:
        raise Unavailable("the exit is not taken")

    setattr(attempts, "end", refuse)  # noqa: B010
