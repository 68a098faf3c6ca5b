"""`atemporal doctor`: is this installation sound, and if not, what is wrong and what to do.

Promise: nothing is changed, in the database, in RabbitMQ, in EC2, or on this host. All checks are made,
whichever fails or hangs; one that can not be made says so, and is never `ok`.
Mechanism: a check is a function of `Instruments` that returns a `Result`; a module has those of one
subject. How they are made is `examination`; the command line only prints.
"""

from atemporal.doctor import (
    broker,
    callback,
    clocks,
    cloud,
    daemons,
    database,
    launch,
    network,
    records,
    settings,
)
from atemporal.doctor.check import Check, Result, Status
from atemporal.doctor.examination import examine
from atemporal.doctor.instruments import Instruments

CHECKS = (
    *settings.CHECKS,
    *database.CHECKS,
    *records.CHECKS,
    *broker.CHECKS,
    *cloud.CHECKS,
    *launch.CHECKS,
    *network.CHECKS,
    *callback.CHECKS,
    *clocks.CHECKS,
    *daemons.CHECKS,
)
"""All checks, in the order in which they are shown."""

__all__ = ["CHECKS", "Check", "Instruments", "Result", "Status", "examine"]
