"""`atemporal-launcher`: wires the launcher's loops to Postgres, RabbitMQ and EC2."""

from __future__ import annotations

from atemporal.broker import Link
from atemporal.cloud import Cloud
from atemporal.daemon import Loop, serve
from atemporal.identity.trusted import group_size
from atemporal.rate_limits import RateLimits
from atemporal.settings import Settings
from atemporal.store.database import Database
from atemporal.telemetry import logger
from services.launcher.instance_types import InstanceTypeLoop
from services.launcher.launch import LaunchLoop
from services.launcher.launcher import Launcher
from services.launcher.sweep import SweepLoop
from services.launcher.tagging import TagLoop


def loops(settings: Settings, database: Database) -> list[Loop]:
    """Build the launcher's loops.

    Raises:
        Invalid: the settings have no callback key, or no certificate for the machines' proofs.
    """
    if group_size(settings) == 1 and settings.launch_group_size is None:
        logger("launcher").info(
            "each instance is launched by a call of its own: no certificate is known for the machines' "
            "proofs",
            region=settings.region,
        )
    cloud = Cloud(settings, RateLimits(settings, database))
    launcher = Launcher(settings, database, cloud)
    link = Link(
        settings.broker_url.get_secret_value(),
        name="atemporal launcher",
        declare=settings.broker_declare,
    )
    return [
        LaunchLoop(launcher, link),
        SweepLoop(launcher, interval_s=settings.sweep_interval_s),
        TagLoop(database, cloud, interval_s=settings.sweep_interval_s),
        InstanceTypeLoop(database, cloud, interval_s=settings.poll_interval_s),
    ]


def main() -> None:
    """Run until SIGTERM."""
    serve("launcher", __doc__, loops)


if __name__ == "__main__":
    main()
