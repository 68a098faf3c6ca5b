"""The calls of EC2's API that the twin answers: nested parameters in, nested answer out.

Promise: `Calls.answer` is the one way in, for every request; so that is where whatever holds for
all calls stands (DryRun, unknown actions). Limits and faults are put in front of it by `gate`. A call
that the twin does not have is `InvalidAction`, never a guess.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from atemporal.twin import description, volumes
from atemporal.twin.books import RUNNING, SHUTTING_DOWN, TERMINATED, Books, Instance, order
from atemporal.twin.filters import Values, select
from atemporal.twin.host import Host
from atemporal.twin.images import IMAGES
from atemporal.twin.launching import check_tag_count, read_tags, run_instances
from atemporal.twin.wire import ApiError, boolean, integer, listed, timestamp

ID_LIMIT = 1000
PAGE = range(5, 1001)

_IMAGE_FILTERS: dict[str, Values[dict[str, Any]]] = {
    "name": lambda image: [image["name"]],
    "state": lambda image: [image["imageState"]],
    "architecture": lambda image: [image["architecture"]],
    "owner-id": lambda image: [image["imageOwnerId"]],
    "image-id": lambda image: [image["imageId"]],
    "image-type": lambda image: [image["imageType"]],
    "root-device-type": lambda image: [image["rootDeviceType"]],
    "virtualization-type": lambda image: [image["virtualizationType"]],
    "is-public": lambda image: [str(image["isPublic"]).lower()],
}
_STATUS_FILTERS: dict[str, Values[Instance]] = {
    name: description.FILTERS[name]
    for name in ("instance-state-name", "instance-state-code", "availability-zone")
}


class Calls:
    """The account that the twin plays: its books and its machines."""

    def __init__(self, books: Books, host: Host, region: str, clock: Callable[[], float]) -> None:
        self._books = books
        self._host = host
        self._fates = host.fates
        self._region = region
        self._clock = clock
        self._filters = dict(description.FILTERS)
        self._filters["client-token"] = lambda i: [books.reservation(i).token]
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "RunInstances": self._run_instances,
            "DescribeInstances": self._describe_instances,
            "DescribeInstanceStatus": self._describe_instance_status,
            "DescribeInstanceAttribute": self._describe_instance_attribute,
            "TerminateInstances": self._terminate_instances,
            "GetConsoleOutput": self._get_console_output,
            "CreateTags": self._create_tags,
            "DescribeImages": self._describe_images,
        }
        self._actions |= volumes.actions(books)

    def answer(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request.

        Raises:
            ApiError: EC2 would refuse it, or the twin does not have it.
        """
        call = self._actions.get(action)
        if call is None:
            raise ApiError(
                "InvalidAction", f"The action {action} is not valid for this web service"
            )
        if boolean(parameters.pop("DryRun", None)):
            raise ApiError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
            )
        return call(parameters)

    def _run_instances(self, parameters: dict[str, Any]) -> dict[str, Any]:
        reservation, new = run_instances(parameters, self._books, self._region, self._clock)
        if new:
            for instance in reservation.instances:
                self._host.launch(instance)
            return description.reservation(reservation, reservation.instances)
        return description.reservation(
            reservation, [self._books.get(one.id) or one for one in reservation.instances]
        )

    def _describe_instances(self, parameters: dict[str, Any]) -> dict[str, Any]:
        ids = listed(parameters.get("InstanceId"), "InstanceId")
        if ids and "MaxResults" in parameters:
            raise ApiError(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            )
        shown = self._fates.shown(self._named(ids) if ids else self._books.instances())
        found = select(shown, parameters, self._filters, lambda i: i.tags)
        page, token = _page(found, parameters)
        made_by = {one.id: self._books.reservation(one) for one in page}
        return {
            "reservationSet": description.reservations(page, made_by),
            "nextToken": token,
        }

    def _describe_instance_status(self, parameters: dict[str, Any]) -> dict[str, Any]:
        ids = listed(parameters.get("InstanceId"), "InstanceId")
        shown = self._fates.shown(self._named(ids) if ids else self._books.instances())
        if not boolean(parameters.get("IncludeAllInstances")):
            shown = [instance for instance in shown if instance.state == RUNNING]
        found = select(shown, parameters, _STATUS_FILTERS, lambda i: i.tags)
        page, token = _page(found, parameters)
        return {
            "instanceStatusSet": [
                {
                    "instanceId": one.id,
                    "availabilityZone": one.zone,
                    "instanceState": description.state(one.state),
                    "systemStatus": _status(one),
                    "instanceStatus": _status(one),
                }
                for one in page
            ],
            "nextToken": token,
        }

    def _describe_instance_attribute(self, parameters: dict[str, Any]) -> dict[str, Any]:
        [instance] = self._named([parameters.get("InstanceId", "")])
        name = parameters.get("Attribute", "")
        values = {
            "userData": self._books.reservation(instance).user_data or None,
            "instanceInitiatedShutdownBehavior": instance.shutdown_behaviour,
            "instanceType": instance.parameters["InstanceType"],
        }
        if name not in values:
            raise ApiError("InvalidParameterValue", f"The attribute '{name}' is not modelled")
        value = values[name]
        content = {} if value is None else {"value": value}
        return {"instanceId": instance.id, name: content}

    def _terminate_instances(self, parameters: dict[str, Any]) -> dict[str, Any]:
        ids = list(dict.fromkeys(listed(parameters.get("InstanceId"), "InstanceId")))
        if not ids:
            raise ApiError("MissingParameter", "The request must contain the parameter InstanceId")
        changes = []
        reason = "Client.UserInitiatedShutdown"
        with self._books.lock:
            for before in self._named(ids):
                at = datetime.fromtimestamp(self._clock(), UTC)
                after = self._books.change(
                    before.id,
                    unless=(SHUTTING_DOWN, TERMINATED),
                    state=SHUTTING_DOWN,
                    state_reason=(reason, f"{reason}: User initiated shutdown"),
                    transition_reason=f"User initiated ({at:%Y-%m-%d %H:%M:%S} GMT)",
                )
                if not before.over:
                    self._host.terminate(after)
                changes.append((before, after))
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

    def _get_console_output(self, parameters: dict[str, Any]) -> dict[str, Any]:
        [instance] = self._named([parameters.get("InstanceId", "")])
        console = self._books.directory(instance.id) / "console"
        raw = console.read_bytes() if console.exists() else b""
        return {
            "instanceId": instance.id,
            "timestamp": timestamp(self._clock()),
            "output": description.console_output(raw),
        }

    def _create_tags(self, parameters: dict[str, Any]) -> dict[str, Any]:
        tags = read_tags(parameters.get("Tag"))
        ids = listed(parameters.get("ResourceId"), "ResourceId")
        if not ids or not tags:
            raise ApiError("MissingParameter", "The request must contain resources and tags")
        with self._books.lock:
            by_volume = {one.volume_id: one for one in self._books.instances()}
            unknown = [one for one in ids if one.startswith("vol-") and one not in by_volume]
            if unknown:
                raise ApiError(
                    "InvalidVolume.NotFound", f"The volume '{unknown[0]}' does not exist."
                )
            targets = [(by_volume[one], "volume_tags") for one in ids if one in by_volume]
            rest = [one for one in ids if one not in by_volume]
            targets += [(instance, "tags") for instance in self._named(rest)]
            changes = [(one, name, {**getattr(one, name), **tags}) for one, name in targets]
            for _, _, all_tags in changes:
                check_tag_count(all_tags)
            for one, name, all_tags in changes:
                changes_of: dict[str, Any] = {name: all_tags}
                self._books.change(one.id, **changes_of)
        return {"return": True}

    def _describe_images(self, parameters: dict[str, Any]) -> dict[str, Any]:
        ids = listed(parameters.get("ImageId"), "ImageId")
        owners = listed(parameters.get("Owner"), "Owner")
        by_id = {image["imageId"]: image for image in IMAGES}
        for image_id in ids:
            if image_id not in by_id:
                raise ApiError(
                    "InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist"
                )
        found = [by_id[one] for one in ids] if ids else list(IMAGES)
        if owners:
            found = [image for image in found if image["imageOwnerId"] in owners]
        return {"imagesSet": select(found, parameters, _IMAGE_FILTERS, lambda _: {})}

    def _named(self, ids: list[str]) -> list[Instance]:
        """The instances with these ids, all or none."""
        if len(ids) > ID_LIMIT:
            raise ApiError("InvalidParameterValue", f"More than {ID_LIMIT} instance ids")
        malformed = [
            one for one in ids if not re.fullmatch(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})", one)
        ]
        if malformed:
            raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{malformed[0]}"')
        found = {one: self._books.get(one) for one in dict.fromkeys(ids)}
        missing = [
            one
            for one, instance in found.items()
            if instance is None or self._fates.is_hidden(instance)
        ]
        if len(missing) == 1:
            text = f"The instance ID '{missing[0]}' does not exist"
            raise ApiError("InvalidInstanceID.NotFound", text)
        if missing:
            text = f"The instance IDs '{', '.join(missing)}' do not exist"
            raise ApiError("InvalidInstanceID.NotFound", text)
        return [instance for instance in found.values() if instance is not None]


def _status(instance: Instance) -> dict[str, Any]:
    return {"status": "ok" if instance.state == RUNNING else "not-applicable", "details": []}


def _page(found: list[Instance], parameters: dict[str, Any]) -> tuple[list[Instance], str | None]:
    """Cut out the page that is asked for; the token names the last instance of the page before."""
    if token := parameters.get("NextToken"):
        try:
            at, last = base64.urlsafe_b64decode(token).decode().split(" ")
            after = (float(at), last)
        except (ValueError, binascii.Error):
            raise ApiError("InvalidParameterValue", "Unable to parse pagination token") from None
        found = [instance for instance in found if order(instance) > after]
    if "MaxResults" not in parameters:
        return found, None
    size = integer("MaxResults", parameters["MaxResults"])
    if size not in PAGE:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value greater "
            f"than {PAGE.start - 1} and not more than {PAGE.stop - 1}.",
        )
    page = found[:size]
    if len(found) <= size:
        return page, None
    mark = order(page[-1])
    return page, base64.urlsafe_b64encode(f"{mark[0]!r} {mark[1]}".encode()).decode()
