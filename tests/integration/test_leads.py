"""What a lead is learned from: what machines took, not how long this system was away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from atemporal.model import AttemptRef, parse_spec
from atemporal.store import jobs, launches, leads
from atemporal.store.database import Database
from tests.claims import claim_due
from tests.launches import LAUNCH


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events"))


def ready_now(
    tx: Connection, *, late_s: float | None = 0, launched_after_s: float | None = None
) -> None:
    """A machine that is ready 70 s after it was begun: so late, and launched so long after that.

    Without `late_s` a release without plans began it; without `launched_after_s` nobody wrote when.
    """
    job_id = jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="t").job_id
    claim_due(tx, 1, actor="t")
    assert launches.begin(tx, AttemptRef(job_id, 1), LAUNCH, actor="t")
    tx.execute(
        text(
            "UPDATE attempts SET created_at = now() - interval '70 s', ready_at = now(),"
            " dispatch_at = now() - interval '70 s' - make_interval(secs => :late_s),"
            " launched_at = now() - interval '70 s' + make_interval(secs => :launched_after_s)"
        ),
        {"late_s": late_s, "launched_after_s": launched_after_s},
    )


@pytest.mark.parametrize(("launched_after_s", "took_s"), [(0, 70), (20, 70), (40, 60), (65, 35)])
def test_a_sample_is_no_longer_for_what_kept_the_call_to_ec2_back(
    database: Database, launched_after_s: float, took_s: float
) -> None:
    """A backlog of ours, or a lack of capacity: thirty seconds of it count, and what came after."""
    with database.begin() as tx:
        ready_now(tx, launched_after_s=launched_after_s)
        (sample,) = leads.samples(tx)
        assert leads.samples(tx, since=sample.at) == []
        assert leads.samples(tx, since=sample.at - 1) == [sample]
    assert sample.seconds == took_s


@pytest.mark.parametrize(
    ("late_s", "took_s"),
    [
        (0, 70),
        (3, 73),
        (29, 99),
        # Schedulers or launchers were away for so long.
        (3600, 100),
        (86_400, 100),
        # One that was to be launched later than it was, and one of a release without plans.
        (-5, 65),
        (None, 70),
    ],
)
def test_a_sample_is_no_longer_for_an_outage_before_the_launch(
    database: Database, late_s: float | None, took_s: float
) -> None:
    with database.begin() as tx:
        ready_now(tx, late_s=late_s)
        (sample,) = leads.samples(tx)
    assert sample.seconds == took_s
