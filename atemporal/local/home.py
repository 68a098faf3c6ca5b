"""The directory of a local installation: what must be the same at the next start.

Promise: one process at a time has it; the keys, the password and the ports in it are made once and
kept, because machines that outlive a restart call the same address with the same token. Everything
in it is for its owner's eyes only.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import shlex
import shutil
import socket
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path
from typing import IO, Any

from atemporal.errors import Conflict, Invalid

# Below the range that systems take outgoing ports from, so that nobody sits there at the next start.
_PORTS = range(20_000, 32_000)
_KEPT = "installation.json"
# Names the installation that a shell's ATEMPORAL_* variables came from.
MARK = "ATEMPORAL_LOCAL_DIR"


class Home:
    """The directory, held from `__init__` to `close`."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if there is none, and take it.

        Raises:
            Conflict: another process has it.
            Invalid: it can not be made or written.
        """
        self.directory = directory.expanduser().absolute()
        self._new = _first_missing(self.directory)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _take(self.directory / "lock")
        except OSError as error:
            raise Invalid({"dir": f"{self.directory}: {error.strerror}"}) from None
        self._file = self.directory / _KEPT
        self._kept: dict[str, Any] = {}
        if self._file.exists():
            self._kept = json.loads(self._file.read_bytes())

    def close(self) -> None:
        """Let another process take it."""
        self._lock.close()

    def discard(self) -> None:
        """Remove a directory that this `Home` has made, and the folders above it that it made."""
        if self._new is None:
            return
        shutil.rmtree(self.directory)
        for folder in self.directory.parents:
            if not folder.is_relative_to(self._new) or any(folder.iterdir()):
                return
            folder.rmdir()

    @property
    def callback_keys(self) -> str:
        """The keys of the machines' tokens, as `ATEMPORAL_CALLBACK_KEYS` has them."""
        return self._made_once("callback_keys", f"local:{secrets.token_hex(32)}")

    @property
    def database_password(self) -> str:
        """The password of the embedded Postgres."""
        return self._made_once("database_password", secrets.token_hex(16))

    def port(self, name: str, *, default: int | None = None) -> int:
        """The port that `name` has had here, else `default`, else any, whichever is free first."""
        for port in (self._kept.get(f"{name}_port"), default):
            if port and _is_free(port):
                return self.keep_port(name, port)
        free = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
        return self.keep_port(name, next(free))

    def keep_port(self, name: str, port: int) -> int:
        """Remember a port that `name` has from now on."""
        if self._kept.get(f"{name}_port") != port:
            self._write({f"{name}_port": port})
        return port

    def write_env(self, variables: Mapping[str, str], stand_ins: Mapping[str, str]) -> Path:
        """Write a file for a shell to read; a stand-in is only for who has no value of his own.

        It is marked as ours, so that an `up` elsewhere knows these values for nobody's choice.
        """
        marked = {MARK: str(self.directory), **variables}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in marked.items()]
        lines += [f'export {name}="${{{name}:-{value}}}"' for name, value in stand_ins.items()]
        path = self.directory / "env"
        _write_private(path, "\n".join(lines) + "\n")
        self._write({"env": dict(variables)})
        return path

    def wrote(self, variable: str, value: str | None) -> bool:
        """Whether a variable's value is what `write_env` wrote last: then nobody else's choice."""
        return value is not None and self._kept.get("env", {}).get(variable) == value

    def _made_once(self, name: str, value: str) -> str:
        if name not in self._kept:
            self._write({name: value})
        return str(self._kept[name])

    def _write(self, changes: Mapping[str, Any]) -> None:
        self._kept |= changes
        _write_private(self._file, json.dumps(self._kept, indent=2))


def forget_other(
    directory: Path, environ: MutableMapping[str, str], shared: Collection[str]
) -> tuple[Path, list[str]] | None:
    """Take out of an environment what the shell has from another installation's `env` file.

    `shared` are the variables that such a file may hold. Returns that installation's directory and
    the variables taken out; None when the environment has no other's.
    """
    mark = environ.pop(MARK, "")
    if not mark or Path(mark) == directory.expanduser().absolute():
        return None
    try:
        written = json.loads((Path(mark) / _KEPT).read_bytes())["env"]
    except (OSError, ValueError, KeyError):
        # It is gone: whatever may have come from it has.
        written = shared
    names = [name for name in shared if name in written and environ.pop(name, None) is not None]
    return Path(mark), names


def default_directory() -> Path:
    """Where an installation is kept when nobody says."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if os.path.isabs(data) else Path.home() / ".local/share") / "atemporal"


def _first_missing(directory: Path) -> Path | None:
    """The topmost of the folders that making a directory makes; None when it is there."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    return missing[-1] if missing else None


def _take(path: Path) -> IO[str]:
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise Conflict(
            f"{path.parent} is in use by process {holder}; end that one, or take another --dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port that only has connections in TIME_WAIT can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
