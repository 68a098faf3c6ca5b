"""The calls to EC2: launch, list, end, and read the console of instances; leftover volumes.

Promise: `run` is idempotent: its ClientToken follows from the attempt and the placement, and all it
sends follows from its arguments and the image, so that repeating it after a crash or a lost answer
gives the same instance. Every instance carries its attempt's tags from its first moment, ends when
it powers itself off, and takes its volumes with it.

Failure handling: whatever boto3 raises becomes a class of `faults`. RunInstances is sent once, with
no retry by the SDK: that would repeat "no capacity" blindly and out of sight of the rate limits. The
calls that only read are repeated by `caller` a few times, each with a token of its own.

One `Cloud` may be shared by threads: boto3's clients are safe for that, and the caches of images
are only ever replaced by an answer as good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from atemporal.cloud import instance as instances
from atemporal.cloud import instance_types, launch_request
from atemporal.cloud import volume as volumes
from atemporal.cloud.caller import Caller
from atemporal.cloud.client import ec2_client
from atemporal.cloud.faults import (
    CloudError,
    NoAnswer,
    NoInstance,
    Throttled,
    Unauthorized,
)
from atemporal.cloud.images import Images
from atemporal.cloud.instance import (
    DEPLOYMENT_TAG,
    GROUP_TAG,
    Instance,
    client_token,
    group_token,
    tags_of,
    tags_of_group,
)
from atemporal.cloud.tagging import Taggings
from atemporal.cloud.termination import Option, Terminations, batches, naming
from atemporal.cloud.volume import AVAILABLE, Volume
from atemporal.errors import AtemporalError, Refused
from atemporal.limits import Limit, Limits, Unlimited
from atemporal.model import AttemptRef, Launch
from atemporal.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

# A page is parsed as a whole, by each thread that lists. With a thousand instances a page three threads
# took 70 MB that the process never gave back, with a hundred 17 MB.
PAGE = 100
VOLUME_PAGE = 100
FILTER_VALUES = 200
LISTING_LEAVES = 0.5
"""The part of the bucket that the pages of a listing leave to shorter questions."""


class Cloud:
    """One region of EC2 for one deployment. Close it, or use it in a `with`.

    Making one asks nothing of EC2. Each call takes a token of `limits` first, but for `run`: whoever
    launches takes its token before it writes down that it will.

    Raises:
        Invalid: the region or the endpoint's URL is malformed.
        Unauthorized: the AWS profile that the environment names does not exist.
    """

    def __init__(
        self, settings: Settings, limits: Limits | None = None, client: EC2Client | None = None
    ) -> None:
        self._settings = settings
        self._ec2 = client or ec2_client(settings)
        self._caller = Caller(limits or Unlimited())
        self._terminations = Terminations(self._ec2, self._caller)
        self._taggings = Taggings(self._ec2, self._caller)
        self._images = Images(settings, self._ec2, self._caller)

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._ec2.close()

    def run(self, ref: AttemptRef, launch: Launch, user_data: bytes) -> Instance:
        """Launch the attempt's instance, or return the one that this very call launched before.

        An instance that has ended since can come back as such: look at its `state`.

        Raises:
            TokenSpent: the token's instance has ended: the attempt is over.
            TokenMismatch: the token is known with other parameters; `find` tells what it launched.
            Refused: any other final refusal (`Rejected`): the same call will never succeed.
            Retry: surely not launched by this call, for a passing cause (`NoCapacity`, `OverQuota`,
                `Throttled`, `Unauthorized`, `TagRefused`, `WrongImage`, `Unreachable`).
            Unknown: may have been launched; repeat the identical call until the answer is sure.
        """
        doing = f"launching attempt {ref.id} ({launch.instance_type}, {launch.image_id})"
        self._images.check_family(launch, doing)
        launched = self._run(self.request(ref, launch, user_data), doing)
        return launched[0]

    def request(self, ref: AttemptRef, launch: Launch, user_data: bytes) -> dict[str, Any]:
        """The parameters of the call that `run` makes."""
        token = client_token(ref, launch.placement)
        tags = tags_of(self._settings.deployment, ref)
        return launch_request.build(
            token, tags, 1, launch, user_data, image=self._images.get(launch.image_id)
        )

    def run_group(
        self, group_id: UUID, launch: Launch, size: int, user_data: bytes
    ) -> list[Instance]:
        """Launch instances for a group, `size` of them if there is room, else as many as there is
        room for; or return those that this very call launched before.

        Raises:
            CloudError: as `run` does. `TooMany`: surely not launched; ask for fewer.
        """
        doing = f"launching {size} of group {group_id} ({launch.instance_type}, {launch.image_id})"
        self._images.check_family(launch, doing)
        return self._run(self._group_request(group_id, launch, size, user_data), doing)

    def all(self) -> list[Instance]:
        """Every instance of the deployment, for about an hour also those that have ended."""
        return self._list({}, "listing the deployment's instances", leave=LISTING_LEAVES)

    def find(self, ref: AttemptRef) -> list[Instance]:
        """The attempt's instances by their tags, the oldest first (to EC2's second).

        A launch of the last minutes may be missing, and one that ended some time ago too.
        """
        tags = tags_of(self._settings.deployment, ref)
        del tags["Name"]  # an operator may rename an instance in the console
        filters = {f"tag:{name}": [value] for name, value in tags.items()}
        found = self._list(filters, f"looking for the instance of attempt {ref.id}")
        return sorted(found, key=lambda i: (i.launched_at is not None, i.launched_at, i.id))

    def find_group(self, group_id: UUID) -> list[Instance]:
        """A group's instances by their tags, the oldest first; see `find`."""
        filters = {f"tag:{GROUP_TAG}": [str(group_id)]}
        found = self._list(filters, f"looking for the instances of group {group_id}")
        return sorted(found, key=lambda i: (i.launched_at is not None, i.launched_at, i.id))

    def tag(
        self, ids: Sequence[str], tags: Mapping[str, str], ref: AttemptRef | None = None
    ) -> None:
        """Put tags on instances and volumes of a group, and with them the attempt's own.

        Raises:
            CloudError: not done, or perhaps done; to do it again does no harm.
        """
        own = tags_of(self._settings.deployment, ref) if ref else {}
        own.pop(DEPLOYMENT_TAG, None)  # it has that, and a policy may forbid to write it
        self._taggings.put(ids, {**tags, **own}, f" for attempt {ref.id}" if ref else "")

    def volumes_of(self, instance_ids: Iterable[str]) -> dict[str, list[str]]:
        """The ids of the deployment's volumes that EC2 shows attached to each of these instances.

        Raises:
            Retry: EC2 can not be asked now.
        """
        found: dict[str, list[str]] = {}
        for chunk in batches(instance_ids, FILTER_VALUES):
            doing = f"listing the volumes of {naming(chunk)}"
            for item in self._volumes({"attachment.instance-id": chunk}, doing):
                for one in item.get("Attachments", ()):
                    found.setdefault(one["InstanceId"], []).append(item["VolumeId"])
        return found

    def describe(self, ids: Iterable[str], *, tagged: bool = True) -> dict[str, Instance]:
        """The deployment's instances among these ids; without `tagged`, whoever's they seem to be.

        Absent are those that EC2 does not know (yet, or any more) and those of somebody else.
        """
        found: dict[str, Instance] = {}
        for chunk in batches(ids, FILTER_VALUES):
            # A filter, because naming an unknown id outright fails the call for all the others.
            filters = {"instance-id": chunk}
            doing = f"describing {naming(chunk)}"
            found.update((i.id, i) for i in self._list(filters, doing, tagged=tagged))
        return found

    def terminate(
        self, ids: Iterable[str], *, skip_os_shutdown: bool = False, force: bool = False
    ) -> dict[str, AtemporalError]:
        """Ask EC2 to end instances; ending one again does no harm. Returns the failures.

        With `skip_os_shutdown` the operating system is not told: for machines on which nothing runs
        that should stop in order. `force` is for one that stays `shutting-down`. None failed does not
        mean that they end: EC2 shows that later. The failures are those of `Terminations.ask`.
        """
        asked: dict[Option, bool] = {"SkipOsShutdown": skip_os_shutdown, "Force": force}
        return self._terminations.ask(ids, frozenset(one for one in asked if asked[one]))

    def terminations_ready_in(self) -> float:
        """Seconds until the limits allow the next call of `terminate`.

        Raises:
            Unavailable: nobody can say.
        """
        return self._caller.ready_in(Limit.TERMINATE_INSTANCES)

    def console(self, instance_id: str, *, live: bool = True) -> str:
        """The newest text of the instance's serial console; `""` when EC2 has none.

        Not `live`, it is the copy alone that EC2 posts now and then, and after an end. It can be read
        for about an hour after the instance's end. Bytes that are not UTF-8 come as replacement
        characters.

        Raises:
            Retry: EC2 can not be asked now.
            Refused: EC2 will not say, though it knows the instance.
        """
        try:
            newest = self._console(instance_id, latest=True) if live else ""
            return newest or self._console(instance_id)
        except NoInstance:
            return ""
        except Refused:  # older instance types keep no live copy, only the one made now and then
            if not live:
                raise
            return self._console(instance_id)

    def volumes(self) -> list[Volume]:
        """Every volume of the deployment that is attached to nothing.

        Raises:
            Retry: EC2 can not be asked now.
        """
        found = self._volumes({"status": [AVAILABLE]}, "listing the deployment's free volumes")
        return [volumes.read(item) for item in found]

    def delete_volumes(self, ids: Iterable[str]) -> dict[str, AtemporalError]:
        """Delete volumes; returns the failures. One that is gone already is none.

        A failure that holds for every call alike is given to all that were not tried any more.
        """
        failures: dict[str, AtemporalError] = {}
        pending = deque(dict.fromkeys(ids))
        while pending:
            volume_id = pending.popleft()
            doing = f"deleting volume {volume_id}"
            try:
                self._caller.wait_for(Limit.DELETE_VOLUME, doing)
                self._caller.send(
                    Limit.DELETE_VOLUME,
                    doing,
                    partial(self._ec2.delete_volume, VolumeId=volume_id),
                )
            except CloudError as error:
                if error.code == "InvalidVolume.NotFound":
                    continue
                failures[volume_id] = error
                if isinstance(error, (Throttled, Unauthorized, NoAnswer)):
                    failures.update(dict.fromkeys(pending, error))
                    break
        return failures

    def vcpus(self, types: Collection[str]) -> dict[str, int]:
        """The vCPUs of instance types; as `instance_types.vcpus`."""
        return instance_types.vcpus(self._ec2, self._caller, types)

    def resolve_image(self, architecture: str | None = None) -> str:
        """The AMI for new launches: the one in the settings, else the newest of the OS family.

        It is for processors of that architecture (EC2's name), else for those of the settings' type. The
        lookup is kept for an hour, so that a daemon that runs for months follows the releases.

        Raises:
            Rejected: this region has none, saying what to set.
            Retry: EC2 can not be asked now.
        """
        return self._images.resolve(architecture)

    def disks_gb(self, image_id: str, disk_gb: int | None) -> int:
        """How large the disks of an instance are together, in GB; 0 where EC2 does not say.

        Raises:
            Retry: EC2 can not be asked now.
        """
        return launch_request.disks_gb(disk_gb, self._images.get(image_id))

    def _run(self, request: dict[str, Any], doing: str) -> list[Instance]:
        answer = self._caller.send(
            Limit.RUN_INSTANCES, doing, lambda: self._ec2.run_instances(**request)
        )
        if not answer.get("Instances"):
            raise NoAnswer(doing, "NoInstanceInAnswer")
        self._images.launched(request["ImageId"])
        return [instances.read(one) for one in answer["Instances"]]

    def _group_request(
        self, group_id: UUID, launch: Launch, size: int, user_data: bytes
    ) -> dict[str, Any]:
        token = group_token(group_id, launch.placement)
        tags = tags_of_group(self._settings.deployment, group_id)
        return launch_request.build(
            token, tags, size, launch, user_data, image=self._images.get(launch.image_id)
        )

    def _list(
        self,
        filters: dict[str, list[str]],
        doing: str,
        *,
        tagged: bool = True,
        leave: float = 0.0,
    ) -> list[Instance]:
        if tagged:
            filters = {f"tag:{DEPLOYMENT_TAG}": [self._settings.deployment], **filters}
        request: dict[str, Any] = {"Filters": _filters(filters), "MaxResults": PAGE}
        return [
            instances.read(item)
            for page in self._pages(self._ec2.describe_instances, request, doing, leave=leave)
            for reservation in page.get("Reservations", ())
            for item in reservation.get("Instances", ())
        ]

    def _pages(
        self, ask: Callable[..., Any], request: dict[str, Any], doing: str, *, leave: float
    ) -> Iterator[Any]:
        """Each page is a call of its own, and is repeated by itself."""
        while True:
            page = self._caller.read(Limit.DESCRIBE, doing, partial(ask, **request), leave=leave)
            yield page
            if not page.get("NextToken"):
                return
            request = {**request, "NextToken": page["NextToken"]}

    def _volumes(self, filters: dict[str, list[str]], doing: str) -> Iterator[Any]:
        wanted = {f"tag:{DEPLOYMENT_TAG}": [self._settings.deployment], **filters}
        request: dict[str, Any] = {"Filters": _filters(wanted), "MaxResults": VOLUME_PAGE}
        for page in self._pages(self._ec2.describe_volumes, request, doing, leave=LISTING_LEAVES):
            yield from page.get("Volumes", ())

    def _console(self, instance_id: str, *, latest: bool = False) -> str:
        options: dict[Literal["Latest"], bool] = {"Latest": True} if latest else {}
        answer = self._caller.read(
            Limit.GET_CONSOLE_OUTPUT,
            f"reading the console of {instance_id}",
            lambda: self._ec2.get_console_output(InstanceId=instance_id, **options),
        )
        return answer.get("Output", "")


def _filters(values: dict[str, list[str]]) -> list[FilterTypeDef]:
    return [{"Name": name, "Values": list(allowed)} for name, allowed in values.items()]
