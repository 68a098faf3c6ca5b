"""The state of the account: its reservations and instances, in files that outlive the twin.

Promise: what a response has confirmed is on disk. A twin that starts on the same directory knows
the same reservations, client tokens, instances, states and tags. Layout:

    reservations/<r-id>.json      one RunInstances call: token, digest of its parameters, user-data, and
                                  its instances as launched; renaming this file into place is the commit
    instances/<i-id>/record.json  the instance since its first change; absent: as launched
    instances/<i-id>/...          the machine's own files (see `host.lifecycle`)

A terminated instance is visible for an hour. A day later it is deleted, and its client token with
it.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from atemporal.twin import jsonfile

OWNER = "123456789012"
"""The account that everything here belongs to."""

PENDING, RUNNING, SHUTTING_DOWN = "pending", "running", "shutting-down"
TERMINATED, STOPPING, STOPPED = "terminated", "stopping", "stopped"
STATE_CODES = {
    PENDING: 0,
    RUNNING: 16,
    SHUTTING_DOWN: 32,
    TERMINATED: 48,
    STOPPING: 64,
    STOPPED: 80,
}

VISIBLE_AFTER_TERMINATION_S = 3600.0
TOKEN_AFTER_TERMINATION_S = 25 * 3600.0
FORGET_EVERY_S = 60.0


@dataclass(frozen=True)
class Instance:
    """One instance; times are seconds since the epoch, `parameters` the call's without user-data."""

    id: str
    reservation_id: str
    index: int
    launched_at: float
    zone: str
    private_ip: str
    parameters: dict[str, Any]
    shutdown_behaviour: str
    tags: dict[str, str]
    volume_id: str
    volume_tags: dict[str, str]
    state: str = PENDING
    state_reason: tuple[str, str] | None = None
    transition_reason: str = ""
    terminated_at: float | None = None
    # What EC2 bills by, and does not show: when it first was running, and when its end began.
    running_at: float | None = None
    ending_at: float | None = None

    @property
    def over(self) -> bool:
        """Whether its end has begun, whoever asked for it."""
        return self.state in (SHUTTING_DOWN, TERMINATED)

    @property
    def capacity_type(self) -> str:
        """`on-demand` or `spot`."""
        options = self.parameters.get("InstanceMarketOptions", {})
        return "spot" if options.get("MarketType") == "spot" else "on-demand"

    @property
    def public_ip(self) -> str | None:
        """The loopback address, as long as the instance runs."""
        return "127.0.0.1" if self.state == RUNNING else None

    @property
    def public_dns(self) -> str | None:
        """A name of the loopback address (RFC 6761), as long as the instance runs."""
        return f"{self.id}.localhost" if self.state == RUNNING else None


@dataclass(frozen=True)
class Reservation:
    """One RunInstances call. `scope` is the zone of a zonal token, empty for a regional one."""

    id: str
    launched_at: float
    token: str
    scope: str
    digest: str
    user_data: str
    instances: tuple[Instance, ...] = field(repr=False)


class State:
    """All reservations and instances, in memory and on disk; every method is safe from any thread."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self.lock = threading.RLock()
        self._clock = clock
        self._reservation_files = directory / "reservations"
        self._instance_files = directory / "instances"
        self._reservation_files.mkdir(parents=True, exist_ok=True)
        self._instance_files.mkdir(parents=True, exist_ok=True)
        self._reservations: dict[str, Reservation] = {}
        self._instances: dict[str, Instance] = {}
        self._by_token: dict[tuple[str, str], Reservation] = {}
        self._past: dict[str, list[tuple[float, Instance]]] = {}
        self._forget_again_at = clock() + FORGET_EVERY_S
        for path in sorted(self._reservation_files.glob("*.json")):
            self._remember(_reservation(json.loads(path.read_bytes())))

    def instances(self) -> list[Instance]:
        """All visible instances, oldest first."""
        with self.lock:
            return sorted(filter(self._visible, self._instances.values()), key=order)

    def get(self, instance_id: str) -> Instance | None:
        """The instance; None if there was none or it is no longer visible."""
        with self.lock:
            instance = self._instances.get(instance_id)
            return instance if instance and self._visible(instance) else None

    def reservation(self, instance: Instance) -> Reservation:
        """The call that launched an instance."""
        with self.lock:
            return self._reservations[instance.reservation_id]

    def launched_with(self, scope: str, token: str) -> Reservation | None:
        """The reservation that a client token made in this scope."""
        with self.lock:
            return self._by_token.get((scope, token))

    def directory(self, instance_id: str) -> Path:
        """Where the files of an instance's machine are."""
        return self._instance_files / instance_id

    def keep_past(self, instance_id: str) -> None:
        """Keep from now on what an instance was like before each change, in memory only."""
        with self.lock:
            self._past.setdefault(instance_id, [])

    def as_of(self, instance: Instance, at: float) -> Instance:
        """The instance as it was at that time, as far as its past was kept."""
        with self.lock:
            for changed_at, before in self._past.get(instance.id, ()):
                if changed_at > at:
                    return before
            return instance

    def commit(self, reservation: Reservation) -> None:
        """Save a new reservation: from here on it has been launched."""
        with self.lock:
            self._forget()
            jsonfile.replace(self._file(reservation), asdict(reservation))
            self._remember(reservation)

    def change(
        self, instance_id: str, *, unless: tuple[str, ...] = (), **changes: Any
    ) -> Instance:
        """Change an instance, unless it is in one of the given states; return it as it is then."""
        with self.lock:
            instance = self._instances[instance_id]
            if instance.state in unless:
                return instance
            instance = self._timed(replace(instance, **changes))
            folder = self.directory(instance_id)
            folder.mkdir(exist_ok=True)
            jsonfile.replace(folder / "record.json", asdict(instance))
            if instance_id in self._past:
                self._past[instance_id].append((self._clock(), self._instances[instance_id]))
            self._instances[instance_id] = instance
            return instance

    def _timed(self, instance: Instance) -> Instance:
        if instance.state == RUNNING and instance.running_at is None:
            return replace(instance, running_at=self._clock())
        if instance.state not in (PENDING, RUNNING) and instance.ending_at is None:
            return replace(instance, ending_at=self._clock())
        return instance

    def _file(self, reservation: Reservation) -> Path:
        return self._reservation_files / f"{reservation.id}.json"

    def _remember(self, reservation: Reservation) -> None:
        self._reservations[reservation.id] = reservation
        self._by_token[reservation.scope, reservation.token] = reservation
        for launched in reservation.instances:
            record = self.directory(launched.id) / "record.json"
            known = _instance(json.loads(record.read_bytes())) if record.exists() else launched
            self._instances[known.id] = known

    def _visible(self, instance: Instance) -> bool:
        ended = instance.terminated_at
        return ended is None or self._clock() - ended <= VISIBLE_AFTER_TERMINATION_S

    def _forget(self) -> None:
        if self._clock() < self._forget_again_at:
            return
        self._forget_again_at = self._clock() + FORGET_EVERY_S
        oldest = self._clock() - TOKEN_AFTER_TERMINATION_S
        for reservation in list(self._reservations.values()):
            ids = [instance.id for instance in reservation.instances]
            if all((self._instances[i].terminated_at or oldest) < oldest for i in ids):
                self._file(reservation).unlink()
                del self._reservations[reservation.id]
                del self._by_token[reservation.scope, reservation.token]
                for instance_id in ids:
                    del self._instances[instance_id]
                    self._past.pop(instance_id, None)
                    shutil.rmtree(self.directory(instance_id), ignore_errors=True)


def order(instance: Instance) -> tuple[float, str]:
    """The order in which instances are listed, and by which a page continues."""
    return (instance.launched_at, instance.id)


def _instance(record: dict[str, Any]) -> Instance:
    reason = record.pop("state_reason")
    return Instance(**record, state_reason=tuple(reason) if reason else None)


def _reservation(record: dict[str, Any]) -> Reservation:
    launched = tuple(_instance(instance) for instance in record.pop("instances"))
    return Reservation(**record, instances=launched)
