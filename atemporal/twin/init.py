"""The first process of a machine, as far as the user-data can tell: units, timers, power-off.

Promise: units are started one after the other in the order of the cloud-config, each waited for as
systemd's start job is; a masked unit, a failed condition and a unit that can not be loaded are
said on the console. A power-off stops every running unit, newest first, and is final: nothing
starts after.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from atemporal.twin import unit
from atemporal.twin.cloudinit import UnitEntry
from atemporal.twin.service import Service, Surroundings

_MASK = "masked"


class Init:
    """The units of one machine."""

    def __init__(self, machine: Surroundings, entries: Sequence[UnitEntry]) -> None:
        self._machine = machine
        self._booted_at = time.monotonic()
        self._units: dict[str, unit.Unit | None] = {}
        self._services: dict[str, Service] = {}
        self._started: set[str] = set()
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._power_off = threading.Event()
        self._forced = False
        self._entries = entries
        for entry in entries:
            self._load(entry)

    def boot(self) -> None:
        """Carry out the commands of the cloud-config, on a thread of their own."""
        threading.Thread(target=self._carry_out, name="cloud-config", daemon=True).start()

    def wait_for_power_off(self) -> None:
        """Wait until somebody asks for it, then stop all units, unless it was asked by force."""
        self._power_off.wait()
        with self._lock:
            running = [service for service in self._services.values() if not service.over.is_set()]
            timers = self._timers
        for timer in timers:
            timer.cancel()
        for service in reversed(running):
            if self._forced:
                service.freeze()
            else:
                service.stop()
        self._machine.say("reboot: Power down")

    def power_off(self, *, by: str, force: bool = False) -> None:
        """Ask for the power-off; the first to ask is named on the console."""
        with self._lock:
            if self._power_off.is_set():
                return
            self._forced = force
            self._machine.say(f"systemd[1]: Powering off{' by force' if force else ''}: {by}")
            self._power_off.set()

    def start(self, name: str) -> bool:
        """Start a unit and what it requires; tell whether it started."""
        if name not in self._units:
            self._machine.say(f"systemd[1]: {name} belongs to the image, nothing is started here")
            return True
        spec = self._units[name]
        if spec is None:
            self._machine.say(f"[FAILED] Failed to start {name}: it is masked or was not loaded")
            return False
        if self._running(name):
            return True
        for needed in (*spec.requires, *spec.wants):
            known = needed in self._units and not self._running(needed)
            if known and not self.start(needed) and needed in spec.requires:
                self._machine.say(f"[DEPEND] Dependency failed for {name}: {needed}")
                return False
        for path, wanted in spec.conditions:
            if (self._machine.root / path.lstrip("/")).exists() != wanted:
                self._machine.say(f"systemd[1]: {name}: skipped, a condition on {path} is not met")
                return True
        if isinstance(spec, unit.Timer):
            return self._arm(spec)
        if isinstance(spec, unit.Service):
            return self._start_service(spec)
        return True

    def stop(self, name: str) -> None:
        """Stop a unit if it runs."""
        with self._lock:
            service = self._services.get(name)
        if service is not None:
            service.stop()

    def request(self, line: str) -> None:
        """Do what `systemctl` on this machine asked for: `start NAME`, `stop NAME`, `poweroff`."""
        verb, _, name = line.partition(" ")
        if verb == "poweroff":
            self.power_off(by="systemctl", force=name == "force")
        elif verb in ("start", "stop"):
            work = self.start if verb == "start" else self.stop
            threading.Thread(target=work, args=(name,), daemon=True).start()
        else:
            self._machine.say(f"systemd[1]: the request {line!r} is not modelled")

    def _load(self, entry: UnitEntry) -> None:
        if entry.mask:
            self._units[entry.name] = None
            self._machine.say(f"systemd[1]: {entry.name} is masked")
            return
        if not entry.content:
            return
        try:
            contents = [content for _, content in entry.drop_ins]
            spec = unit.load(entry.name, entry.content, contents)
        except unit.BadUnit as error:
            self._units[entry.name] = None
            self._machine.say(f"systemd[1]: {entry.name} is not loaded: {error}")
            return
        self._units[entry.name] = spec
        for note in spec.notes:
            self._machine.say(f"systemd[1]: {entry.name}: {note}")

    def _carry_out(self) -> None:
        for entry in self._entries:
            if self._power_off.is_set():
                return
            if entry.command in ("start", "restart", "try-restart", "reload-or-restart"):
                self.start(entry.name)
            elif entry.command == "stop":
                self.stop(entry.name)
            elif entry.command:
                self._machine.say(f"coreos-cloudinit: command {entry.command!r} is not modelled")
        self._machine.say("coreos-cloudinit: all commands are carried out")

    def _start_service(self, spec: unit.Service) -> bool:
        service = Service(spec, self._machine, self._ended)
        with self._lock:
            if self._power_off.is_set():
                return False
            self._services[spec.name] = service
        return service.start()

    def _ended(self, service: Service, success: bool) -> None:
        action = service.spec.success_action if success else service.spec.failure_action
        if action != "none":
            self.power_off(by=f"{service.spec.name} ended", force=action == "force")

    def _arm(self, timer: unit.Timer) -> bool:
        since_boot = time.monotonic() - self._booted_at
        delays = [*timer.on_active_s, *(max(0.0, span - since_boot) for span in timer.on_boot_s)]
        for delay in delays:
            clock = threading.Timer(delay, self._fire, (timer,))
            clock.daemon = True
            with self._lock:
                self._timers.append(clock)
            clock.start()
        self._started.add(timer.name)
        self._machine.say(f"[  OK  ] Started {timer.name} - {timer.description}.")
        return True

    def _fire(self, timer: unit.Timer) -> None:
        self._machine.say(f"systemd[1]: {timer.name} elapsed, starting {timer.starts}")
        self.start(timer.starts)

    def _running(self, name: str) -> bool:
        with self._lock:
            service = self._services.get(name)
            return name in self._started or (service is not None and not service.over.is_set())


def serve_requests(init: Init, fifo: str) -> None:
    """Hand every line that `systemctl` writes into the FIFO to `init`, for ever."""
    # Opened for writing too, so that the last writer's end is not the end of the file.
    with os.fdopen(os.open(fifo, os.O_RDWR), "r") as lines:
        for line in lines:
            init.request(line.strip())
