"""`atemporal-reaper`: wires the reaper's loops to Postgres, RabbitMQ and EC2."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from atemporal import tokens
from atemporal.broker import Link
from atemporal.cloud import Cloud, Notices
from atemporal.daemon import Loop, serve
from atemporal.fleet.plan import Limits
from atemporal.model import Attempt
from atemporal.rate_limits import RateLimits
from atemporal.settings import Settings
from atemporal.store.database import Database
from services.reaper.auditor import AuditLoop
from services.reaper.notices import NoticeLoop
from services.reaper.reap import ReapLoop
from services.reaper.reaper import Reaper
from services.reaper.retention import RetentionLoop
from services.reaper.sweep import SweepLoop
from services.reaper.volumes import VolumeLoop

QUIET = 3
"""While nothing changes EC2's listing is read in every so many intervals."""


def loops(settings: Settings, database: Database) -> list[Loop]:
    """Build the reaper's loops; the one for EC2's events only where a queue is named."""
    cloud = Cloud(settings, RateLimits(settings, database))
    reaper = Reaper(database, cloud, proven=_prover(settings))
    holder = uuid4().hex
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
    interval_s = settings.sweep_interval_s
    made: list[Loop] = [
        ReapLoop(reaper, link),
        SweepLoop(
            reaper, database, limits=limits, interval_s=interval_s, quiet=QUIET, holder=holder
        ),
        VolumeLoop(reaper, database, grace_s=limits.grace_s, interval_s=interval_s, holder=holder),
        AuditLoop(reaper, database, limits=limits, interval_s=interval_s, holder=holder),
        RetentionLoop(
            database,
            days=settings.retention,
            log_days=settings.log_kept_days,
            cost_days=settings.costs_kept_days,
        ),
    ]
    if settings.events_queue_url:
        made.append(NoticeLoop(reaper, database, Notices(settings), limits=limits))
    return made


def _prover(settings: Settings) -> Callable[[Attempt], bool]:
    """Who tells whether EC2 named an attempt's instance to this deployment; without keys, nobody."""
    keys = settings.keys if settings.callback_keys.get_secret_value() else {}

    def proven(attempt: Attempt) -> bool:
        return tokens.instance_is_proven(
            keys,
            attempt.instance_proof or "",
            settings.deployment,
            attempt.ref.id,
            attempt.instance_id or "",
        )

    return proven


def main() -> None:
    """Run until SIGTERM."""
    serve("reaper", __doc__, loops)


if __name__ == "__main__":
    main()
