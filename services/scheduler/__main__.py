"""`atemporal-scheduler`: wires the scheduler's loops to Postgres and RabbitMQ."""

from __future__ import annotations

from atemporal.broker import Link
from atemporal.daemon import Loop, serve
from atemporal.settings import Settings
from atemporal.store.database import Database
from services.scheduler.due import DueLoop
from services.scheduler.lead import LeadLoop
from services.scheduler.recurring import RecurringLoop
from services.scheduler.relay import RelayLoop
from services.scheduler.submit import SubmitLoop


def loops(settings: Settings, database: Database) -> list[Loop]:
    """Build the scheduler's loops; each that needs the broker has a connection of its own."""

    def link(name: str) -> Link:
        url = settings.broker_url.get_secret_value()
        return Link(url, name=f"atemporal scheduler {name}", declare=settings.broker_declare)

    return [
        DueLoop(database, link("due"), poll_interval_s=settings.poll_interval_s),
        LeadLoop(database, settings),
        RecurringLoop(database, link("recurring"), interval_s=settings.poll_interval_s),
        SubmitLoop(database, link("submit")),
        RelayLoop(database, link("relay"), interval_s=settings.poll_interval_s / 2),
    ]


def main() -> None:
    """Run until SIGTERM."""
    serve("scheduler", __doc__, loops)


if __name__ == "__main__":
    main()
