"""`atemporal-scheduler`: wires the scheduler's loops to Postgres and RabbitMQ."""

from __future__ import annotations

from atemporal.broker import Link
from atemporal.daemon import Loop, serve
from atemporal.prices import load
from atemporal.settings import Settings
from atemporal.store.database import Database
from atemporal.terms import Terms
from services.scheduler.cost_limits import CostLimitLoop
from services.scheduler.dead_letters import DeadLetterLoop
from services.scheduler.due import DueLoop
from services.scheduler.lead import LeadLoop
from services.scheduler.recurring import RecurringLoop
from services.scheduler.relay import RelayLoop
from services.scheduler.schedule_messages import ScheduleMessageLoop
from services.scheduler.start_deadlines import StartDeadlineLoop
from services.scheduler.submit import SubmitLoop
from services.scheduler.webhooks import WebhookLoop


def loops(settings: Settings, database: Database) -> list[Loop]:
    """Build the scheduler's loops; each that needs the broker has a connection of its own.

    Raises:
        Invalid: the price table can not be read.
    """
    terms = Terms.of(settings, load(settings))

    def link(name: str) -> Link:
        url = settings.broker_url.get_secret_value()
        return Link(url, name=f"atemporal scheduler {name}", declare=settings.broker_declare)

    return [
        DueLoop(
            database,
            link("due"),
            poll_interval_s=settings.poll_interval_s,
            instance_type=settings.instance_type,
        ),
        LeadLoop(database, settings),
        RecurringLoop(database, link("recurring"), interval_s=settings.poll_interval_s),
        StartDeadlineLoop(database, link("start-deadlines"), interval_s=settings.poll_interval_s),
        CostLimitLoop(database, link("cost-limits")),
        SubmitLoop(database, link("submit"), terms=terms),
        ScheduleMessageLoop(
            database,
            link("schedule-messages"),
            allowed=settings.schedule_messages,
            terms=terms,
        ),
        DeadLetterLoop(database, link("dead-letters"), interval_s=settings.poll_interval_s),
        RelayLoop(database, link("relay"), interval_s=settings.poll_interval_s / 2),
        WebhookLoop(
            database,
            allowed=settings.networks_of_webhooks,
            http=settings.webhook_http,
            interval_s=settings.poll_interval_s,
        ),
    ]


def main() -> None:
    """Run until SIGTERM."""
    serve("scheduler", __doc__, loops)


if __name__ == "__main__":
    main()
