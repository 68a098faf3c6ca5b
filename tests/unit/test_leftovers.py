"""Which free volume may be deleted: only what surely belonged to an attempt that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from atemporal.cloud import Instance, Volume
from atemporal.fleet.leftovers import Leftovers, find_leftovers
from atemporal.fleet.snapshot import Snapshot
from atemporal.model import Attempt, AttemptRef, Launch
from atemporal.states import AttemptState

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
REF = AttemptRef(UUID("01900000-0000-7000-8000-000000000001"), 1)
LAUNCH = Launch(
    image_id="ami-1", instance_type="t3.small", callback_base="http://x", key_id="k", deadline_s=9
)
OURS, THEIRS = (UUID(f"01900000-0000-4000-8000-00000000000{n}") for n in (1, 2))
TAGS = {"atemporal:job": str(REF.job_id), "atemporal:attempt": "1"}


def found(
    state: AttemptState | None = AttemptState.CLOSED,
    *,
    age: float = 301,
    tags: dict[str, str] = TAGS,
    instances: tuple[Instance, ...] = (),
    before: tuple[str, ...] = ("vol-1",),
) -> Leftovers:
    created = NOW - timedelta(seconds=age)
    attempts = {}
    if state is not None:
        attempts[REF] = Attempt(
            job_id=REF.job_id, number=1, state=state, launch=LAUNCH, created_at=created
        )
    volume = Volume("vol-1", "available", created, tags=tags)
    snapshot = Snapshot(NOW, OURS, attempts, instances, volumes=(volume,))
    return find_leftovers(snapshot, grace_s=300, free_before=before)


def test_free_in_two_looks_with_its_attempt_closed_is_deleted() -> None:
    first = found(before=())
    assert (first.free, first.delete) == ({"vol-1"}, [])
    assert found(before=tuple(first.free)).delete == ["vol-1"]


def test_a_young_one_proves_nothing() -> None:
    assert found(age=300) == Leftovers()


@pytest.mark.parametrize("state", [one for one in AttemptState if one is not AttemptState.CLOSED])
def test_while_its_attempt_is_open_it_stays(state: AttemptState) -> None:
    assert found(state) == Leftovers()


def test_while_another_instance_of_the_attempt_lives_it_stays() -> None:
    for state in ("pending", "running", "shutting-down"):
        assert found(instances=(Instance("i-1", state, tags=TAGS),)) == Leftovers()
    assert found(instances=(Instance("i-1", "terminated", tags=TAGS),)).delete == ["vol-1"]


@pytest.mark.parametrize("tags", [{}, {**TAGS, "atemporal:job": "x"}, TAGS])
def test_an_orphan_is_counted_and_stays(tags: dict[str, str]) -> None:
    assert found(None, tags=tags) == Leftovers(orphaned={"vol-1"})


@pytest.mark.parametrize(("installation", "counted"), [(OURS, {"vol-1"}), (THEIRS, set())])
def test_one_that_another_installation_made_is_not_even_counted(
    installation: UUID, counted: set[str]
) -> None:
    tags = {**TAGS, "atemporal:installation": str(installation)}
    assert found(None, tags=tags) == Leftovers(orphaned=counted)
