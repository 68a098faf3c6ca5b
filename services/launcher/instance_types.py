"""The loop that looks up the vCPUs of instance types, for the limit on vCPUs.

Promise: a type that a scheduler needs to know is asked for within seconds; EC2 is asked for nothing
else. One that EC2 does not have counts as 0: nothing can be launched of it.
Mechanism: schedulers, which have no rights in AWS, write down which types they need; this process may
ask, and what it writes notifies them.
Failure: jobs of a type that nobody knows wait, and say so, while EC2 can not be asked.
"""

from __future__ import annotations

from atemporal.cloud import Cloud, CloudError
from atemporal.cloud.instance_types import MOST
from atemporal.store import instance_types
from atemporal.store.database import Database
from atemporal.telemetry import logger


class InstanceTypeLoop:
    """Asks EC2 about the types that somebody needs to know."""

    name = "launch-types"

    def __init__(self, database: Database, cloud: Cloud, *, interval_s: float) -> None:
        """Take both sides."""
        self._database = database
        self._cloud = cloud
        self._interval_s = interval_s
        self._log = logger("launcher")

    def tick(self) -> float:
        """Look up what is needed and not known."""
        with self._database.begin() as tx:
            wanted = instance_types.unknown(tx, limit=MOST)
        if wanted:
            try:
                known = self._cloud.vcpus(wanted)
            except CloudError as error:
                self._log.warning(
                    "instance types not looked up", types=", ".join(wanted), error=str(error)
                )
            else:
                with self._database.begin() as tx:
                    instance_types.write(tx, {name: known.get(name, 0) for name in wanted})
        return self._interval_s

    def reset(self) -> None:
        """Nothing of its own is open between ticks."""
