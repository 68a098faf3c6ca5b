"""What the checks work with: settings, a database, EC2; clocks and files that a test may exchange.

Promise: nothing is connected before a check asks for it. Each is made by the first check of its subject,
which the others of that subject need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from atemporal.broker.inspection import Inspection as BrokerInspection
from atemporal.calendar import rules_version
from atemporal.cloud.inspection import Inspection
from atemporal.settings import Settings, load
from atemporal.store.database import Database

SYSTEM_ZONES = Path("/usr/share/zoneinfo/tzdata.zi")
"""Where Linux has its own zone rules; the first line names their version."""

_CONNECTIONS = 8


def shown(url: str) -> str:
    """A URL without the user and the password that it may name."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class Instruments:
    """One examination's. Close them, or use them in a `with`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        management: str | None = None,
        health: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        rules: Callable[[], str] = rules_version,
        system_zones: Path = SYSTEM_ZONES,
    ) -> None:
        """Take what is known of the installation beside its settings.

        `management` is the address of RabbitMQ's management API, `health` those of daemons' own ports.
        `now` gives this host's clock, in seconds since the epoch.
        """
        self.environment = environment
        self.management = management
        self.health = health
        self.now = now
        self.rules = rules
        self.system_zones = system_zones

    @cached_property
    def settings(self) -> Settings:
        """The settings of the daemons.

        Raises:
            Invalid: a variable's value is wrong.
        """
        return load()

    @cached_property
    def database(self) -> Database:
        """The database.

        Raises:
            Invalid: its URL can not be read.
        """
        return Database(
            self.settings.database_url.get_secret_value(),
            application="atemporal doctor",
            pool_size=_CONNECTIONS,
            on_unreadable=lambda _error: None,
        )

    @cached_property
    def ec2(self) -> Inspection:
        """EC2.

        Raises:
            Invalid: the region or the endpoint's URL is malformed.
            Unauthorized: there is no such AWS profile.
        """
        return Inspection(self.settings)

    def broker(self) -> BrokerInspection:
        """A connection to the broker, for one check.

        Raises:
            Unavailable: the broker does not answer, or refuses us.
            Invalid: the URL is no RabbitMQ's.
        """
        return BrokerInspection(self.settings.broker_url.get_secret_value())

    def close(self) -> None:
        """Give all connections back."""
        if "database" in self.__dict__:
            self.database.dispose()
        if "ec2" in self.__dict__:
            self.ec2.close()

    def __enter__(self) -> Instruments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
