"""Work that stops at chosen points and goes on later: how ticks of many daemons interleave.

Promise: of all tasks at most one runs at any moment, and which one is the caller's choice, so a
schedule is a function of its seed. Each task has a thread of its own only because ordinary code can
not be stopped in the middle otherwise; the threads hand one baton around and are used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Crash(BaseException):
    """The process dies here, whatever it was about to do: no `except Exception` stops it."""


class Task:
    """One tick, one request: begun by the first `resume`, over when `done`."""

    def __init__(self, owner: object, work: Callable[[], Any]) -> None:
        """Take the work of `owner`; nothing runs yet."""
        self.owner = owner
        self._work = work
        self._thread: _Thread | None = None
        self._back = threading.Lock()
        self._back.acquire()
        self.done = False
        self.killed = False
        self.open_transactions = 0
        self.result: Any = None
        self.error: BaseException | None = None

    def resume(self) -> None:
        """Let it run until its next pause or its end."""
        global _current
        if self._thread is None:
            self._thread = _idle.pop() if _idle else _Thread()
            self._thread.task = self
        before, _current = _current, self
        self._thread.baton.release()
        self._back.acquire()
        _current = before

    def kill(self) -> None:
        """Make it crash where it stands."""
        self.killed = True
        if self._thread is None:
            self.done = True
        while not self.done:
            self.resume()

    def pause(self) -> None:
        """Stop here until resumed; called by the task itself.

        Raises:
            Crash: it was killed meanwhile.
        """
        assert self._thread is not None
        self._back.release()
        self._thread.baton.acquire()
        if self.killed:
            raise Crash("killed")

    def run(self) -> None:
        """Do the work; called by the thread."""
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - the scheduler looks at it
            self.error = error
        self.done = True

    def give_back(self) -> None:
        """Hand the baton back for good; called by the thread."""
        self._thread = None
        self._back.release()


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.baton = threading.Lock()
        self.baton.acquire()
        self.task: Task | None = None
        self.start()

    def run(self) -> None:
        while True:
            self.baton.acquire()
            task = self.task
            assert task is not None
            task.run()
            self.task = None
            _idle.append(self)
            task.give_back()


_idle: list[_Thread] = []
_current: Task | None = None


def current() -> Task | None:
    """The task that runs, if it is not the scheduler."""
    return _current
