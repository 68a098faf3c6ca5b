"""How the checks are made: side by side, each for a bounded time, whatever the others do.

Promise: every check has a result. One that does not end in time is wrong and says so; one that needs
another which failed is not made, and says which; one that fails of an error that nobody foresaw is
wrong, with that error.
Mechanism: a check is a thread, because a socket that hangs can not be stopped. Such a thread is left
behind and ends with the process, so this is for a program that ends soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

from atemporal.cloud import Throttled
from atemporal.doctor.check import Check, Result, Status, unchecked, wrong
from atemporal.doctor.instruments import Instruments
from atemporal.errors import AtemporalError, Service, Unavailable

LIMIT_S = 20.0
"""How long a check may take."""

_FAILED = (Status.WRONG, Status.UNCHECKED)


def examine(
    checks: Sequence[Check],
    instruments: Instruments,
    *,
    limit_s: float | None = None,
    clock: Callable[[], float] = monotonic,
) -> Iterator[tuple[Check, Result]]:
    """Make all checks; yields each with its result in the order of `checks`, as soon as it is there.

    Each may take `limit_s` seconds, or `LIMIT_S`.
    """
    limit_s = LIMIT_S if limit_s is None else limit_s
    done: dict[str, Result] = {}
    ends: dict[str, float] = {}
    answers: SimpleQueue[tuple[str, Result]] = SimpleQueue()
    waiting = list(checks)
    for check in checks:
        while check.name not in done:
            waiting = _start(waiting, done, ends, instruments, answers, clock() + limit_s)
            if check.name in done:
                break
            try:
                name, result = answers.get(timeout=max(0.0, min(ends.values()) - clock()))
                done.setdefault(name, result)
                ends.pop(name, None)
            except Empty:
                for name in [one for one, end in ends.items() if end <= clock()]:
                    del ends[name]
                    done[name] = _overdue(limit_s)
        yield check, done[check.name]


def _start(
    waiting: Sequence[Check],
    done: dict[str, Result],
    ends: dict[str, float],
    instruments: Instruments,
    answers: SimpleQueue[tuple[str, Result]],
    end: float,
) -> list[Check]:
    """Start what can be started; returns what still waits for others."""
    left: list[Check] = []
    for check in waiting:
        failed = next((n for n in check.needs if n in done and done[n].status in _FAILED), None)
        if failed is not None:
            done[check.name] = unchecked(f"needs {failed}", f"see {failed}")
        elif all(name in done for name in check.needs):
            ends[check.name] = end
            Thread(target=_make, args=(check, instruments, answers), daemon=True).start()
        else:
            left.append(check)
    return left


def _make(
    check: Check, instruments: Instruments, answers: SimpleQueue[tuple[str, Result]]
) -> None:
    try:
        result = check.ask(instruments)
    except Unavailable as error:
        result = wrong(str(error), advice(error), no_answer=error.service is not None)
    except Throttled as error:
        result = unchecked(str(error), "run doctor again")
    except AtemporalError as error:
        result = wrong(str(error), "see the message")
    except Exception as error:  # noqa: BLE001 - the other checks are made all the same
        result = wrong(f"the check failed: {type(error).__name__}: {error}", "report this")
    answers.put((check.name, result))


def _overdue(limit_s: float) -> Result:
    return wrong(
        f"no answer within {limit_s:g} s: what it asks hangs",
        "see what stands between this host and that server, and the server's own log",
        no_answer=True,
    )


def advice(error: Unavailable) -> str:
    """What to do when a server does not answer, or refuses."""
    match error.service:
        case Service.POSTGRES:
            return "start it, or correct ATEMPORAL_DATABASE_URL (host, user, password, name)"
        case Service.RABBITMQ:
            return "start it, or correct ATEMPORAL_BROKER_URL (host, user, password, virtual host)"
        case Service.EC2:
            return (
                "correct ATEMPORAL_REGION or ATEMPORAL_EC2_ENDPOINT_URL, and this host's way to it"
            )
        case _:
            return "see the message"
