"""Connections to Postgres.

Promise: whatever psycopg2 or SQLAlchemy raise because the server is away, restarting or too slow
leaves here as `Unavailable`, a broken rule of the tables as `Conflict`; every wait has an end
(connect, statement, lock, idle in transaction), and a session whose client's host has vanished ends
within about a minute, with its locks.
After a server's restart the next transaction gets a fresh connection by itself.
"""

from __future__ import annotations

import logging
import select as os_select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from zlib import crc32

import psycopg2
from sqlalchemy import Connection, create_engine, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ResourceClosedError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from atemporal.errors import Conflict, InDoubt, Invalid, Service, Unavailable, Unreadable
from atemporal.settings import PREFIX
from atemporal.store.rows import LEFT_OUT
from atemporal.store.transitions import DUE_CHANNEL
from atemporal.tables import REVISION

_SESSION = (
    # What a statement here saves by being compiled is less than the compiling takes: with a million
    # finished jobs it took 215 ms of the audit's 235.
    "-c jit=off "
    "-c statement_timeout=30000 -c lock_timeout=10000 "
    "-c idle_in_transaction_session_timeout=60000 -c timezone=UTC "
    # A client whose host or network dies says no goodbye: without these the server keeps its session,
    # and the locks of that, for about two hours. On a Unix socket they mean nothing.
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
    "-c tcp_user_timeout=60000"
)
# Longer than any tick that the daemons' health checks put up with: whoever holds a lock for longer
# is stopped, not slow. Postgres has this limit since release 14.
_LONGEST_TICK_S = 600
_IDLE_LIMIT_SINCE = (14,)

# A network that swallows packets must not hold a thread for the kernel's quarter of an hour.
_NETWORK_LIMITS = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_DRIVER = "postgresql+psycopg2"
_NOT_OF_THIS_RELEASE = ("42P01", "42703")  # undefined table, undefined column
_NOT_NOW = ("25006", "42501")  # a read-only server after a failover; a right that is missing


def _log_unreadable(error: Unreadable) -> None:
    logging.getLogger(__name__).error("left out: %s", error)


class Database:
    """A pool of connections to one Postgres; safe to share between threads."""

    longest_tick_s = _LONGEST_TICK_S
    """How long a stopped process may hold up the others in `only_one`, in seconds."""

    def __init__(
        self,
        url: str,
        *,
        application: str = "atemporal",
        pool_size: int = 10,
        on_unreadable: Callable[[Unreadable], None] = _log_unreadable,
    ) -> None:
        """Take a libpq or SQLAlchemy URL; nothing is connected yet.

        `on_unreadable` is told of each row that a transaction left out because it can not be read.

        Raises:
            Invalid: the URL can not be read.
        """
        self._on_unreadable = on_unreadable
        self._engine = create_engine(
            _read_url(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            # An environment is among the parameters; errors are logged.
            hide_parameters=True,
            pool_timeout=10,
            connect_args={
                "connect_timeout": 5,
                "options": _SESSION,
                "application_name": application,
                **_NETWORK_LIMITS,
            },
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction; committed at the end of the block, rolled back on any error.

        Raises:
            Unavailable: the server could not be reached or went away.
            InDoubt: it went away before its answer to the commit; every write of a daemon is guarded,
                so repeating the block is safe for them.
            Conflict: what was written breaks a rule of the tables.
        """
        left_out: dict[tuple[str, int | None], Unreadable] = {}
        commits = False
        try:
            with _translated(), self._engine.begin() as tx:
                tx.execution_options(**{LEFT_OUT: left_out})
                yield tx
                commits = True
        except Unavailable as error:
            if commits:
                raise InDoubt(str(error), error.service) from error
            raise
        finally:
            for unreadable in left_out.values():
                self._on_unreadable(unreadable)

    @contextmanager
    def each(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction of its own, committed as it ends.

        A process that stops between two of them holds no lock.

        Raises:
            Unavailable: the server could not be reached or went away; the last statement may be done.
        """
        with _translated(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def only_one(self, name: str) -> Iterator[bool]:
        """Yield whether this process is the only one inside the block named `name`.

        The lock belongs to a session of its own, idle meanwhile. It is free again at once when this
        process dies; within about a minute when its host or network does; and after ten minutes when
        the process is stopped for so long (with Postgres 13: never, while it is). So two can be
        inside, and what is done inside must bear that: the lock saves work, it protects nothing.

        Raises:
            Unavailable: at the end of the block: the lock was lost meanwhile.
        """
        key = {"key": crc32(name.encode())}
        with _translated(), self._engine.connect() as session:
            session = session.execution_options(isolation_level="AUTOCOMMIT")
            if not session.scalar(text("SELECT pg_try_advisory_lock(:key)"), key):
                yield False
                return
            limited = (session.dialect.server_version_info or ()) >= _IDLE_LIMIT_SINCE
            lost: DBAPIError | None = None
            try:
                if limited:
                    session.execute(text(f"SET idle_session_timeout = '{self.longest_tick_s}s'"))
                yield True
            finally:
                if not session.closed:
                    lost = _unlock(session, key, limited=limited)
            # Not from within: what failed in the block is what the caller has to hear of.
            if lost is not None:
                raise Unavailable(
                    f"Postgres has ended the session that held the lock {name!r}: another process "
                    f"may have done the same meanwhile ({_first_line(lost.orig)})",
                    Service.POSTGRES,
                ) from lost

    def ping(self) -> None:
        """Ask the server anything.

        Raises:
            Unavailable: it does not answer.
        """
        with self.begin() as tx:
            tx.execute(text("SELECT 1"))

    def check_schema(self) -> None:
        """Ask whether the tables have the shape that this release needs, or a newer one.

        Raises:
            Unavailable: they have an older shape, or none; or the server does not answer.
        """
        with self.begin() as tx:
            found = tx.scalar(text("SELECT max(version_num) FROM alembic_version"))
        if found is None or found < REVISION:
            raise Unavailable(
                f"the database is at step {found or 'none'}, this release needs {REVISION}: "
                "run `atemporal db upgrade`"
            )

    def listen(self) -> NotificationListener:
        """Open a listener for jobs that became due sooner than a poll would find them."""
        return NotificationListener(
            self._engine.url.set(drivername="postgresql").render_as_string(False)
        )

    def dispose(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()


def server_time(tx: Connection) -> datetime:
    """The time by which everything is decided: the database's."""
    now: datetime = tx.execute(select(func.now())).scalar_one()
    return now


class NotificationListener:
    """One connection that LISTENs; used by one thread."""

    def __init__(self, url: str) -> None:
        """Connect and listen.

        Raises:
            Unavailable: the server does not answer.
        """
        try:
            self._connection = psycopg2.connect(
                url,
                connect_timeout=5,
                application_name="atemporal listener",
                options=_SESSION,
                **_NETWORK_LIMITS,
            )
            self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(f"LISTEN {DUE_CHANNEL}")
        except psycopg2.Error as error:
            raise _away(error) from error

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a notification or the timeout; tell whether one came.

        Raises:
            Unavailable: the connection is gone; open a new listener.
        """
        try:
            if not self._connection.notifies:
                os_select.select([self._connection], [], [], max(0.0, timeout_s))
                self._connection.poll()
            notified = bool(self._connection.notifies)
            self._connection.notifies.clear()
        except (psycopg2.Error, OSError, ValueError) as error:
            raise Unavailable(
                f"Postgres went away: {_first_line(error)}", Service.POSTGRES
            ) from error
        return notified

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _read_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("postgres", "postgresql", _DRIVER):
        # The text may hold a password, so it is not repeated.
        why = "is not a URL like postgresql://user:password@host:5432/name"
        raise Invalid({f"{PREFIX}DATABASE_URL": why})
    return url.set(drivername=_DRIVER)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Conflict(f"the database refuses: {_first_line(error.orig)}") from error
    except (OperationalError, InterfaceError, PoolTimeoutError, ResourceClosedError) as error:
        # A deadlock's victim comes here as well, and may try again like everybody else.
        cause = getattr(error, "orig", None) or error
        raise _away(cause) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(
                f"Postgres went away: {_first_line(error.orig)}", Service.POSTGRES
            ) from error
        if getattr(error.orig, "pgcode", None) in _NOT_OF_THIS_RELEASE:
            what = _first_line(error.orig)
            raise Unavailable(f"{what}: run `atemporal db upgrade` on this database") from error
        code = getattr(error.orig, "pgcode", None) or ""
        if code in _NOT_NOW or code.startswith("57"):
            raise Unavailable(
                f"Postgres will not: {_first_line(error.orig)}", Service.POSTGRES
            ) from error
        raise


def _unlock(session: Connection, key: Mapping[str, int], *, limited: bool) -> DBAPIError | None:
    """Give the lock back, and the session to the pool as it was; return why that was not possible."""
    try:
        if limited:
            session.execute(text("RESET idle_session_timeout"))
        session.execute(text("SELECT pg_advisory_unlock(:key)"), key)
    except DBAPIError as error:
        # The server drops the lock together with the broken session.
        session.invalidate()
        return error
    return None


def _away(cause: object) -> Unavailable:
    """The server does not answer; or it does, and lets nobody in, which somebody has to correct."""
    why = _first_line(cause)
    refuses = " FATAL: " in why and "starting up" not in why and "shutting down" not in why
    what = "Postgres refuses us" if refuses else "Postgres does not answer"
    return Unavailable(f"{what}: {why}", Service.POSTGRES)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
