"""`atemporal-reaper`: wires the reaper's loops to Postgres, RabbitMQ and EC2."""

from __future__ import annotations

from atemporal.broker import Link
from atemporal.cloud import Cloud
from atemporal.daemon import Loop, serve
from atemporal.settings import Settings
from atemporal.store.database import Database
from services.reaper.judgement import Limits
from services.reaper.reaper import Reaper, ReapLoop, SweepLoop


def loops(settings: Settings, database: Database) -> list[Loop]:
    """Build the reaper's loops."""
    reaper = Reaper(database, Cloud(settings))
    link = Link(
        settings.broker_url.get_secret_value(),
        name="atemporal reaper",
        declare=settings.broker_declare,
    )
    limits = Limits(
        launch_s=settings.launch_deadline_s,
        boot_s=settings.boot_deadline_s,
        pull_s=settings.pull_deadline_s,
        stop_s=settings.stop_deadline_s,
        queue_s=settings.queue_deadline_s,
        grace_s=settings.cloud_grace_s,
    )
    return [
        ReapLoop(reaper, link),
        SweepLoop(reaper, database, limits=limits, interval_s=settings.sweep_interval_s),
    ]


def main() -> None:
    """Run until SIGTERM."""
    serve("reaper", __doc__, loops)


if __name__ == "__main__":
    main()
