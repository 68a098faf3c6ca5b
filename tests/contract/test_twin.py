"""What only the twin shows of EC2: what a ClientToken means, states over time, limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from atemporal.cloud import (
    Cloud,
    Instance,
    NoInstance,
    Rejected,
    TokenMismatch,
    TokenSpent,
    tagging,
)
from atemporal.model import AttemptRef, Launch

pytestmark = pytest.mark.parametrize("endpoint", ["twin"], indirect=True, scope="session")

NewRef = Callable[[], AttemptRef]
NOTHING = b"#!/bin/true\n"
LIMIT = 16_384


def await_state(cloud: Cloud, instance_id: str, state: str) -> Instance:
    """Ask until the instance is in a state; EC2 has no event for it that a client could await."""
    deadline = time.monotonic() + 30
    while True:
        instance = cloud.describe([instance_id])[instance_id]
        if instance.state == state:
            return instance
        assert time.monotonic() < deadline, f"{instance} never became {state}"
        time.sleep(0.05)


def test_the_same_call_again_is_the_same_instance(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()

    ids = {cloud.run(ref, launch, NOTHING).id for _ in range(3)}

    assert len(ids) == 1
    assert {instance.id for instance in cloud.all()} == ids


def test_the_same_call_from_many_threads_at_once_is_the_same_instance(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    with ThreadPoolExecutor(8) as pool:
        launched = list(pool.map(lambda _: cloud.run(ref, launch, NOTHING), range(16)))

    assert len({instance.id for instance in launched}) == 1
    assert len(cloud.all()) == 1


@pytest.mark.parametrize(
    "update",
    [
        {"instance_type": "t3.large"},
        {"disk_gb": 99},
        {"capacity_type": "spot"},
        {"tags": {"team": "x"}},
    ],
)
def test_the_same_token_with_another_intent_is_a_mismatch(
    cloud: Cloud, launch: Launch, new_ref: NewRef, update: dict[str, object]
) -> None:
    ref = new_ref()
    instance = cloud.run(ref, launch, NOTHING)

    with pytest.raises(TokenMismatch) as mismatch:
        cloud.run(ref, launch.model_copy(update=update), NOTHING)

    assert mismatch.value.code == "IdempotentParameterMismatch"
    assert [found.id for found in cloud.find(ref)] == [instance.id]


@pytest.mark.parametrize("unknown", ["i-0123456789abcdef0", "vol-0123456789abcdef0"])
def test_one_unknown_resource_leaves_all_others_untagged(
    cloud: Cloud, launch: Launch, new_ref: NewRef, unknown: str
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    with pytest.raises(NoInstance):
        cloud.tag([instance.id, unknown], {"batch": "7"})

    assert "batch" not in cloud.describe([instance.id])[instance.id].tags


def test_more_resources_than_one_call_may_name_are_several_calls(
    cloud: Cloud, launch: Launch, new_ref: NewRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [cloud.run(new_ref(), launch, NOTHING).id for _ in range(2)]
    many = [f"i-{number:017x}" for number in range(1, 1000)]
    with pytest.raises(NoInstance):
        cloud.tag([*ids, *many], {"batch": "7"})

    monkeypatch.setattr(tagging, "BATCH", 1001)
    with pytest.raises(Rejected) as too_many:
        cloud.tag([*ids, *many], {"batch": "7"})
    assert too_many.value.code == "InvalidParameterValue"


@pytest.mark.parametrize("key", ["aws:cost", "AWS:cost"])
def test_a_key_of_awss_is_refused(cloud: Cloud, launch: Launch, new_ref: NewRef, key: str) -> None:
    with pytest.raises(Rejected) as refused:
        cloud.run(new_ref(), launch.model_copy(update={"tags": {key: "1"}}), NOTHING)
    assert refused.value.code == "InvalidParameterValue"


def test_the_same_token_with_other_user_data_is_a_mismatch(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    cloud.run(ref, launch, NOTHING)

    with pytest.raises(TokenMismatch):
        cloud.run(ref, launch, NOTHING + b"# another byte\n")


def test_the_next_placement_is_another_instance(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    first = cloud.run(ref, launch, NOTHING)
    second = cloud.run(ref, launch.model_copy(update={"placement": 1}), NOTHING)

    assert first.id != second.id
    assert {i.client_token for i in cloud.find(ref)} == {f"{ref.id}.0", f"{ref.id}.1"}


def test_a_token_is_spent_with_its_instance(cloud: Cloud, launch: Launch, new_ref: NewRef) -> None:
    ref = new_ref()
    instance = cloud.run(ref, launch, NOTHING)
    assert cloud.terminate([instance.id]) == {}
    await_state(cloud, instance.id, "terminated")

    with pytest.raises(TokenSpent) as spent:
        cloud.run(ref, launch, NOTHING)

    assert spent.value.code == "IdempotentInstanceTerminated"
    assert [found.id for found in cloud.find(ref)] == [instance.id]


def test_an_instance_goes_from_pending_to_running_to_terminated(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)
    assert instance.state == "pending"
    assert not instance.gone

    await_state(cloud, instance.id, "running")
    assert cloud.terminate([instance.id]) == {}

    assert await_state(cloud, instance.id, "terminated").gone


def test_user_data_has_a_limit(cloud: Cloud, launch: Launch, new_ref: NewRef) -> None:
    ref = new_ref()

    with pytest.raises(Rejected) as refused:
        cloud.run(ref, launch, b"#" * (LIMIT + 1))

    assert refused.value.code == "InvalidUserData.Malformed"
    assert cloud.find(ref) == []
    assert cloud.run(ref, launch, b"#" * LIMIT).ref == ref


def test_a_malformed_image_id_is_refused_for_good(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    with pytest.raises(Rejected) as refused:
        cloud.run(new_ref(), launch.model_copy(update={"image_id": "flatcar"}), NOTHING)

    assert refused.value.code == "InvalidAMIID.Malformed"
    assert cloud.all() == []
