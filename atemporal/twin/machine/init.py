"""The first process of a machine, as far as the user-data can tell: units and power-off.

Promise: the commands of the user-data are carried out in its order, each waited for as systemd's
start job is. A start takes along what the unit requires and wants, one after the other and none before
what it is ordered after; who asked waits for the unit alone. A masked unit and a unit that can not be
loaded are reported on the console. A power-off stops every running unit, newest first, and is final:
nothing starts after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from atemporal.twin.machine import unit
from atemporal.twin.machine.first_boot import UnitEntry
from atemporal.twin.machine.service import MachineContext, Service


class Init:
    """The units of one machine."""

    def __init__(
        self,
        machine: MachineContext,
        entries: Sequence[UnitEntry],
        *,
        program: str,
        after_command: Callable[[], None] = lambda: None,
    ) -> None:
        """Load the units that the program has written; `after_command` is called after each command."""
        self._machine = machine
        self._program = program
        self._after_command = after_command
        self._units: dict[str, unit.Unit | None] = {}
        self._services: dict[str, Service] = {}
        self._lock = threading.Lock()
        self._power_off = threading.Event()
        self._forced = False
        self._entries = entries
        for entry in entries:
            self._load(entry)

    def boot(self) -> None:
        """Carry out the commands, on a thread of their own."""
        threading.Thread(target=self._carry_out, name="commands", daemon=True).start()

    def wait_for_power_off(self) -> None:
        """Wait until somebody asks for it, then stop all units, unless it was asked by force."""
        self._power_off.wait()
        with self._lock:
            running = [service for service in self._services.values() if not service.over.is_set()]
        for service in reversed(running):
            if self._forced:
                service.freeze()
            else:
                service.stop()
        self._machine.log("reboot: Power down")

    def power_off(self, *, by: str, force: bool = False) -> None:
        """Ask for the power-off; the first to ask is named on the console."""
        with self._lock:
            if self._power_off.is_set():
                return
            self._forced = force
            self._machine.log(f"systemd[1]: Powering off{' by force' if force else ''}: {by}")
            self._power_off.set()

    def start(self, name: str) -> bool:
        """Start a unit and what it requires and wants; return whether it started, once that is known."""
        if name == "poweroff.target":
            self.power_off(by=self._program)
            return True
        started: Future[bool] = Future()

        def carry_out() -> None:
            failed: set[str] = set()
            for one in self._in_order(name):
                if not self._start(one, failed):
                    failed.add(one)
                if one == name:
                    started.set_result(one not in failed)

        threading.Thread(target=carry_out, name=f"start-{name}", daemon=True).start()
        return started.result()

    def _in_order(self, name: str) -> list[str]:
        """The unit and what it pulls in, each after those of them that it is ordered after.

        Where nothing is said the pulled in come first.
        """
        order: list[str] = []
        reached: set[str] = set()
        members = self._pulled_in(name)

        def place(one: str) -> None:
            if one in reached:
                return
            reached.add(one)
            loaded = self._units.get(one)
            for earlier in loaded.after if loaded else ():
                if earlier in members:
                    place(earlier)
            order.append(one)

        for one in reversed(members):
            place(one)
        return order

    def _pulled_in(self, name: str) -> list[str]:
        members = [name]
        for one in members:
            loaded = self._units.get(one)
            needed = (*loaded.requires, *loaded.wants) if loaded else ()
            members += [other for other in needed if other in self._units and other not in members]
        return members

    def _start(self, name: str, failed: set[str]) -> bool:
        if name not in self._units:
            self._machine.log(f"systemd[1]: {name} belongs to the image, nothing is started here")
            return True
        loaded = self._units[name]
        if loaded is None:
            self._machine.log(f"[FAILED] Failed to start {name}: it is masked or was not loaded")
            return False
        if self._is_running(name):
            return True
        if lacking := failed.intersection(loaded.requires):
            self._machine.log(f"[DEPEND] Dependency failed for {name}: {', '.join(lacking)}")
            return False
        service = Service(loaded, self._machine, self._ended)
        with self._lock:
            if self._power_off.is_set():
                return False
            self._services[name] = service
        return service.start()

    def _load(self, entry: UnitEntry) -> None:
        if entry.mask:
            self._units[entry.name] = None
            self._machine.log(f"systemd[1]: {entry.name} is masked")
        elif entry.content:
            try:
                self._units[entry.name] = unit.load(entry.name, entry.content)
            except unit.BadUnit as error:
                self._units[entry.name] = None
                self._machine.log(f"systemd[1]: {entry.name} is not loaded: {error}")

    def _carry_out(self) -> None:
        for entry in self._entries:
            if self._power_off.is_set():
                return
            if entry.command == "start":
                self.start(entry.name)
                self._after_command()
            elif entry.command:
                self._machine.log(f"{self._program}: command {entry.command!r} is not modelled")
        self._machine.log(f"{self._program}: all commands are carried out")

    def _ended(self, service: Service, success: bool) -> None:
        loaded = service.unit
        action = loaded.success_action if success else loaded.failure_action
        if action != "none":
            self.power_off(by=f"{loaded.name} ended", force=action == "poweroff-force")

    def _is_running(self, name: str) -> bool:
        with self._lock:
            service = self._services.get(name)
        return service is not None and not service.over.is_set()
