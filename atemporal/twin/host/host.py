"""All machines of a twin, each with its lifecycle.

Promise: every instance that is not over has exactly one lifecycle, whether it was launched by this
twin or by an earlier one on the same directory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from atemporal.twin.containers.engine import Engine
from atemporal.twin.faults.plan import FaultPlan
from atemporal.twin.faults.rule import FaultRule
from atemporal.twin.host.lifecycle import Lifecycle
from atemporal.twin.host.pace import Pace
from atemporal.twin.state import STOPPED, TERMINATED, Instance, State


class Host:
    """The machines; `metadata_url` gives the base URL of an instance's metadata service."""

    def __init__(
        self,
        state: State,
        plan: FaultPlan,
        engine: Engine,
        pace: Pace,
        clock: Callable[[], float],
        metadata_url: Callable[[str], str],
    ) -> None:
        self.state = state
        self.plan = plan
        self.engine = engine
        self.pace = pace
        self.clock = clock
        self.metadata_url = metadata_url
        self._lifecycles: dict[str, Lifecycle] = {}
        self._lock = threading.Lock()

    def resume(self) -> None:
        """Take back every machine that an earlier twin on this directory left."""
        for instance in self.state.instances():
            if instance.state not in (TERMINATED, STOPPED):
                self._begin(instance)

    def launch(self, instance: Instance) -> None:
        """Begin the lifecycle of a new instance."""
        self.plan.launched(instance)
        self._begin(instance)

    def inject(self, rule: FaultRule, number: float) -> None:
        """Inject a fault into the running instance that the rule names.

        Raises:
            NotFound, Conflict, Invalid: it can not happen to it.
        """
        instance_id = self.plan.inject(rule, number)
        with self._lock:
            lifecycle = self._lifecycles.get(instance_id)
        if lifecycle is not None:
            lifecycle.schedule_endings()

    def terminate(self, instance: Instance, *, at_once: bool = False) -> None:
        """End the machine of an instance that has been set to shutting-down.

        `at_once`: without its operating system.
        """
        with self._lock:
            lifecycle = self._lifecycles.get(instance.id)
        if lifecycle is not None:
            lifecycle.terminate(at_once=at_once)
        else:
            self._begin(instance)

    def force(self, instance: Instance) -> None:
        """Bring an instance that is shutting-down to its end."""
        with self._lock:
            lifecycle = self._lifecycles.get(instance.id)
        if lifecycle is not None:
            lifecycle.force()

    def close(self, *, power_off: bool) -> None:
        """Stop watching all machines, which go on; or power them off first."""
        with self._lock:
            lifecycles = list(self._lifecycles.values())
        if power_off:
            for lifecycle in lifecycles:
                lifecycle.unstick()
                lifecycle.terminate()
            for lifecycle in lifecycles:
                lifecycle.join(2 * self.pace.kill_after_s + self.pace.shutdown_s)
        for lifecycle in lifecycles:
            lifecycle.abandon()

    def _begin(self, instance: Instance) -> None:
        lifecycle = Lifecycle(
            instance,
            state=self.state,
            plan=self.plan,
            engine=self.engine,
            pace=self.pace,
            clock=self.clock,
            metadata_url=self.metadata_url(instance.id),
            over=self._forget,
        )
        with self._lock:
            self._lifecycles[instance.id] = lifecycle
        lifecycle.start()

    def _forget(self, instance_id: str) -> None:
        with self._lock:
            self._lifecycles.pop(instance_id, None)
