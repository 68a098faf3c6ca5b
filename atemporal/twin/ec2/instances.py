"""Instances that have been launched: described, terminated, read out.

Promise: as in EC2, a call that names instances is about all of them or is refused, but for a
termination where some are protected; and a termination may be repeated.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from atemporal.twin.ec2 import description, page
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.filters import Values, select
from atemporal.twin.ec2.wire import ApiError, boolean, listed, timestamp
from atemporal.twin.state import RUNNING, SHUTTING_DOWN, TERMINATED, Instance

CONSOLE_LIMIT = 64 * 1024

_STATUS_FILTERS: dict[str, Values[Instance]] = {
    name: description.FILTERS[name]
    for name in ("instance-state-name", "instance-state-code", "availability-zone")
}


def describe(account: Account, parameters: Parameters) -> Response:
    """DescribeInstances."""
    ids = listed(parameters.get("InstanceId"), "InstanceId")
    if ids and "MaxResults" in parameters:
        raise ApiError(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    state = account.state
    filters = {
        **description.FILTERS,
        "client-token": lambda i: [state.reservation(i).token],
    }
    found = select(account.shown(ids), parameters, filters, lambda i: i.tags)
    chosen, token = page.cut(found, parameters)
    made_by = {one.id: state.reservation(one) for one in chosen}
    return {
        "reservationSet": description.reservations(chosen, made_by),
        "nextToken": token,
    }


def describe_status(account: Account, parameters: Parameters) -> Response:
    """DescribeInstanceStatus."""
    shown = account.shown(listed(parameters.get("InstanceId"), "InstanceId"))
    if not boolean(parameters.get("IncludeAllInstances")):
        shown = [instance for instance in shown if instance.state == RUNNING]
    found = select(shown, parameters, _STATUS_FILTERS, lambda i: i.tags)
    chosen, token = page.cut(found, parameters)
    return {
        "instanceStatusSet": [
            {
                "instanceId": one.id,
                "availabilityZone": one.zone,
                "instanceState": description.state(one.state),
                "systemStatus": _status(one),
                "instanceStatus": _status(one),
            }
            for one in chosen
        ],
        "nextToken": token,
    }


def describe_attribute(account: Account, parameters: Parameters) -> Response:
    """DescribeInstanceAttribute."""
    [instance] = account.named([parameters.get("InstanceId", "")])
    name = parameters.get("Attribute", "")
    values = {
        "userData": account.state.reservation(instance).user_data or None,
        "instanceInitiatedShutdownBehavior": instance.shutdown_behaviour,
        "instanceType": instance.parameters["InstanceType"],
    }
    if name not in values:
        raise ApiError("InvalidParameterValue", f"The attribute '{name}' is not modelled")
    value = values[name]
    content = {} if value is None else {"value": value}
    return {"instanceId": instance.id, name: content}


def terminate(account: Account, parameters: Parameters) -> Response:
    """TerminateInstances.

    SkipOsShutdown kills the machine. Force brings one to its end that stays shutting-down. A protected
    instance saves those of its own zone, and no others, though the response is an error.
    """
    ids = list(dict.fromkeys(listed(parameters.get("InstanceId"), "InstanceId")))
    if not ids:
        raise ApiError("MissingParameter", "The request must contain the parameter InstanceId")
    at_once = boolean(parameters.get("SkipOsShutdown"))
    forced = boolean(parameters.get("Force"))
    changes = []
    with account.state.lock:
        named = account.named(ids)
        protected = [one for one in named if _is_protected(one)]
        saved = {one.zone for one in protected}
        for before in named:
            if before.zone not in saved:
                after = _end(account, before, at_once=at_once, forced=forced)
                changes.append((before, after))
    if protected:
        raise ApiError(
            "OperationNotPermitted",
            f"The instance '{protected[0].id}' may not be terminated. Modify its"
            " 'disableApiTermination' instance attribute and try again.",
        )
    return {
        "instancesSet": [
            {
                "instanceId": before.id,
                "currentState": description.state(after.state),
                "previousState": description.state(before.state),
            }
            for before, after in changes
        ]
    }


def _is_protected(instance: Instance) -> bool:
    return boolean(instance.parameters.get("DisableApiTermination")) and not instance.over


def _end(account: Account, before: Instance, *, at_once: bool, forced: bool) -> Instance:
    at = datetime.fromtimestamp(account.clock(), UTC)
    reason = "Client.UserInitiatedShutdown"
    after = account.state.change(
        before.id,
        unless=(SHUTTING_DOWN, TERMINATED),
        state=SHUTTING_DOWN,
        state_reason=(reason, f"{reason}: User initiated shutdown"),
        transition_reason=f"User initiated ({at:%Y-%m-%d %H:%M:%S} GMT)",
    )
    if not before.over:
        account.host.terminate(after, at_once=at_once)
    elif before.state == SHUTTING_DOWN and forced:
        account.host.force(after)
    return after


def get_console_output(account: Account, parameters: Parameters) -> Response:
    """GetConsoleOutput."""
    [instance] = account.named([parameters.get("InstanceId", "")])
    console = account.state.directory(instance.id) / "console"
    raw = console.read_bytes() if console.exists() else b""
    return {
        "instanceId": instance.id,
        "timestamp": timestamp(account.clock()),
        "output": base64.b64encode(raw[-CONSOLE_LIMIT:]).decode(),
    }


def _status(instance: Instance) -> dict[str, Any]:
    return {"status": "ok" if instance.state == RUNNING else "not-applicable", "details": []}
