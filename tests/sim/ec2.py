"""EC2 in memory, below boto3: the client that `atemporal.cloud.Cloud` makes its calls with.

Promise: what the developer guide says and what users report of EC2 is here. A client token is zonal
where the call names a subnet; a known token gives its instance again, refuses other parameters, and
is spent when the instance has ended (an error in some regions, the dead instance in others). An
instance can be missing from listings for a minute and a half after its launch, ending it then fails
and proves nothing; one bad id spares its whole batch; what has ended is listed for an hour, its tags
for less. An instance that was granted may end for want of room before it boots. A policy denies one tag
for ever. Failures come before or after the thing was done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn
from uuid import UUID

from botocore.exceptions import ClientError, ReadTimeoutError

from atemporal.cloud.instance import ATTEMPT_TAG, GROUP_TAG, JOB_TAG
from atemporal.identity.signer import CERTIFICATE, IdentitySigner
from atemporal.model import AttemptRef
from cloud_config.flatcar import FLATCAR
from tests.sim.machine import Machine, Manifest
from tests.sim.tasks import Task
from tests.sim.world import DENIED, NOBODY, World, label

HIDDEN_S = 90.0
# What a new instance is hidden for, each as likely.
HIDDEN_FOR_S = (0.0, 0.0, 5.0, HIDDEN_S)
LISTED_S = 3600.0
IMAGE = "ami-0123456789abcdef0"
TRUSTED = Path(mkdtemp(prefix="atemporal-sim-"))
SIGNER = IdentitySigner(TRUSTED)
CERTIFICATES = str(TRUSTED / CERTIFICATE)
ZONES = {"subnet-0a": "us-east-1a", "subnet-0b": "us-east-1b"}


@dataclass
class Instance:
    """One instance: what is true of it, and from when on EC2 says so."""

    id: str
    token: str
    tags: dict[str, str]
    request: dict[str, Any]
    launched_at: datetime
    listed_at: datetime
    silent: bool
    machine: Machine
    ended_at: datetime | None = None
    gone_at: datetime | None = None
    tagged_until: datetime | None = None
    state_reason: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it costs money, or could do anything."""
        return self.ended_at is None

    owner: Callable[[str], AttemptRef | None] = lambda _: None

    @property
    def group(self) -> str | None:
        """The launch group its tags name."""
        return self.tags.get(GROUP_TAG)

    @property
    def ref(self) -> AttemptRef:
        """The attempt its tags name; of a group's, the one that it was told or that is recorded."""
        if self.group is None or self.machine.manifest.ref != NOBODY:
            return self.machine.manifest.ref
        return self.owner(self.id) or NOBODY

    def state(self, now: datetime) -> str:
        """EC2's word for its state."""
        if self.gone_at is None:
            return "running" if self.machine.booted else "pending"
        return "terminated" if now >= self.gone_at else "shutting-down"


@dataclass
class _Launch:
    """What is known of a client token."""

    digest: str
    instances: list[Instance]


@dataclass
class _Call:
    """A RunInstances call: was its outcome open when another token was used?"""

    token: str
    answered: bool = False


@dataclass
class Region:
    """The instances and tokens."""

    world: World
    instances: dict[str, Instance] = field(default_factory=dict)
    tokens: dict[tuple[str, str], _Launch] = field(default_factory=dict)
    calls: dict[AttemptRef | UUID, list[_Call]] = field(default_factory=dict)
    runs: dict[AttemptRef, list[str]] = field(default_factory=dict)
    send: Callable[[str, Manifest, bytes], Task | None] = lambda *_: None
    judge_kill: Callable[[Instance], None] = lambda _: None
    judge_skip: Callable[[Instance], None] = lambda _: None
    judge_start: Callable[[AttemptRef], None] = lambda _: None
    owner: Callable[[str], AttemptRef | None] = lambda _: None

    def launch(self, token: str, request: dict[str, Any]) -> list[Instance]:
        """Make instances, unless the token has some."""
        scope = ZONES[request["SubnetId"]] if "SubnetId" in request else ""
        digest = repr(sorted(request.items(), key=lambda item: item[0]))
        known = self.tokens.get((scope, token))
        if known is not None:
            if known.digest != digest:
                refuse("IdempotentParameterMismatch", 400)
            if known.instances:
                if all(one.alive for one in known.instances) or self.world.seed % 2:
                    return known.instances
                refuse("IdempotentInstanceTerminated", 400)
        # Even a refused call pins its token to its parameters.
        launch = self.tokens[scope, token] = _Launch(digest, [])
        many = request["MaxCount"]
        if many > 1 and self.world.happens("ec2 too many", token):
            refuse("ResourceCountExceeded", 400)
        if self.world.happens("ec2 no capacity", token):
            refuse("InsufficientInstanceCapacity", 500)
        if self.world.happens("ec2 quota", token):
            refuse("VcpuLimitExceeded", 400)
        if self.world.happens("ec2 refused", token):
            refuse("InvalidParameterValue", 400)
        if many > 1 and self.world.happens("ec2 launches some", token):
            many = self.world.rng.randint(1, many - 1)
        earlier = self._earlier(request)
        launch.instances = [self._new(token, request, earlier) for _ in range(many)]
        return launch.instances

    def _earlier(self, request: dict[str, Any]) -> list[Instance]:
        """What was launched before for the same attempt, or for the same group."""
        manifest = Manifest.read(request["UserData"])
        if manifest.group is not None:
            group = str(manifest.group)
            return [one for one in self.instances.values() if one.group == group]
        return [one for one in self.instances.values() if one.ref == manifest.ref]

    def _new(self, token: str, request: dict[str, Any], earlier: list[Instance]) -> Instance:
        world = self.world
        hidden = 0.0 if world.calm else world.rng.choice(HIDDEN_FOR_S)
        instance_id = f"i-{len(self.instances) + 1:017x}"
        instance = self.instances[instance_id] = Instance(
            id=instance_id,
            token=token,
            silent=world.happens("ec2 has no console", instance_id),
            tags={tag["Key"]: tag["Value"] for tag in request["TagSpecifications"][0]["Tags"]},
            request=request,
            launched_at=world.now,
            listed_at=world.after(hidden),
            machine=Machine(
                world,
                instance_id,
                request["UserData"],
                send=self.send,
                power_off=lambda why: self.end(instance, why),
                runs=self.runs,
                judge_start=self.judge_start,
                identity=lambda: _identity(instance),
            ),
            owner=self.owner,
        )
        ref, group = instance.machine.manifest.ref, instance.machine.manifest.group
        if group is None:
            assert instance.tags[JOB_TAG] == str(ref.job_id)
            assert instance.tags[ATTEMPT_TAG] == str(ref.number)
        else:
            assert instance.tags[GROUP_TAG] == str(group)
            world.counts["instances launched for groups"] += 1
        world.counts["instances launched"] += 1
        world.note(f"EC2 launched {instance_id} for {label(ref)} ({token})")
        if earlier:
            world.counts["second instances"] += 1
        if world.happens("ec2 no room after all", instance_id):
            instance.machine.phase = "off"
            self.end(instance, "Server.InsufficientInstanceCapacity")
        # Racing launchers may each have a call under way; but a token after an open outcome of
        # another is money spent on a guess.
        settled = {call.token for call in self.calls[group or ref] if call.answered}
        if any(one.token in settled for one in earlier):
            who = f"group {group}" if group else label(ref)
            world.breaks(f"a second instance was launched for {who} without need")
        return instance

    def end(self, instance: Instance, reason: str) -> None:
        """The instance goes: by a call, by itself, or by EC2's doing."""
        if not instance.alive:
            return
        world = self.world
        instance.ended_at = world.now
        instance.gone_at = world.after(world.rng.choice([0.0, 5.0, 60.0]))
        instance.tagged_until = world.after(world.rng.choice([600.0, LISTED_S, LISTED_S]))
        instance.state_reason = reason
        world.note(f"EC2: {instance.id} of {label(instance.ref)} ends: {reason}")

    def listed(self, instance: Instance) -> bool:
        """Whether EC2 says that it knows it."""
        now = self.world.now
        ended = instance.ended_at
        if ended is not None and (now - ended).total_seconds() > LISTED_S:
            return False
        return now >= instance.listed_at


class Client:
    """A boto3 EC2 client, as far as the product uses one."""

    def __init__(self, region: Region) -> None:
        """Remember the region."""
        self._region = region
        self._world = region.world

    def run_instances(self, *, ClientToken: str, **request: Any) -> dict[str, Any]:
        """RunInstances."""
        region, world = self._region, self._world
        manifest = Manifest.read(request["UserData"])
        ref = manifest.ref
        call = _Call(ClientToken)
        region.calls.setdefault(manifest.group or ref, []).append(call)
        doing = f"RunInstances for {label(ref)} ({ClientToken}, {request['MaxCount']})"
        try:
            with world.effect(doing):
                self._fail_before(doing)
                self._deny(request["TagSpecifications"][0]["Tags"])
                instances = region.launch(ClientToken, request)
                self._fail_after(doing)
        finally:
            call.answered = True
        return {"Instances": [self._item(one) for one in instances]}

    def create_tags(self, *, Resources: list[str], Tags: list[dict[str, str]]) -> None:
        """CreateTags."""
        doing = f"CreateTags {' '.join(Resources)}"
        with self._world.effect(doing):
            self._fail_before(doing)
            self._deny(Tags)
            for resource in Resources:
                is_volume = resource.startswith("vol-")
                known = self._region.instances.get(resource.replace("vol-", "i-"))
                if known is None or not self._region.listed(known):
                    kind = "InvalidVolume" if is_volume else "InvalidInstanceID"
                    refuse(f"{kind}.NotFound", 400)
                if not is_volume:
                    known.tags |= {tag["Key"]: tag["Value"] for tag in Tags}
            self._fail_after(doing)

    def terminate_instances(
        self, *, InstanceIds: list[str], SkipOsShutdown: bool = False, Force: bool = False
    ) -> dict[str, Any]:
        """TerminateInstances: all or none; some endpoints do not know its newer parameters."""
        region = self._region
        doing = f"TerminateInstances {' '.join(InstanceIds)}"
        if (SkipOsShutdown or Force) and self._world.seed % 5 == 0:
            refuse("UnknownParameter", 400)
        with self._world.effect(doing):
            self._fail_before(doing)
            for instance_id in InstanceIds:
                known = region.instances.get(instance_id)
                if known is None or not region.listed(known):
                    refuse("InvalidInstanceID.NotFound", 400)
            for instance_id in InstanceIds:
                instance = region.instances[instance_id]
                if instance.alive:
                    region.judge_kill(instance)
                    if SkipOsShutdown:
                        region.judge_skip(instance)
                        instance.machine.phase = "off"
                    else:
                        instance.machine.shut_down()
                region.end(instance, "Client.UserInitiatedShutdown")
            self._fail_after(doing)
        return {}

    def describe_instances(self, *, Filters: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        """DescribeInstances: all on one page."""
        return {"Reservations": [{"Instances": self.describe(Filters)}]}

    def describe_volumes(self, *, Filters: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        """DescribeVolumes: an instance has one disk, which does not outlive it."""
        wanted = {one["Name"]: one["Values"] for one in Filters}
        of = wanted.get("attachment.instance-id", ())
        listed = [self._region.instances[one] for one in of if one in self._region.instances]
        return {
            "Volumes": [
                {
                    "VolumeId": one.id.replace("i-", "vol-"),
                    "Attachments": [{"InstanceId": one.id}],
                }
                for one in listed
                if one.alive and self._region.listed(one)
            ]
        }

    def describe(self, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """DescribeInstances with filters by tag and id."""
        self._world.point("before DescribeInstances")
        self._fail_before("DescribeInstances")
        found = [one for one in self._region.instances.values() if self._region.listed(one)]
        items = [self._item(one) for one in found]
        for wanted in filters:
            name, values = wanted["Name"], wanted["Values"]
            if name == "instance-id":
                items = [item for item in items if item["InstanceId"] in values]
            else:
                key = name.removeprefix("tag:")
                items = [item for item in items if _tags(item).get(key) in values]
        self._world.point("after DescribeInstances")
        return items

    def get_console_output(self, *, InstanceId: str, Latest: bool = False) -> dict[str, Any]:
        """GetConsoleOutput."""
        self._fail_before(f"GetConsoleOutput {InstanceId}")
        instance = self._region.instances[InstanceId]
        if not self._region.listed(instance):
            refuse("InvalidInstanceID.NotFound", 400)
        if instance.silent:
            refuse("UnsupportedOperation", 400)
        return {"Output": instance.machine.console}

    def describe_images(self, **_: Any) -> dict[str, Any]:
        """DescribeImages: one image, with one disk."""
        disk = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}
        image = {"ImageId": IMAGE, "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [disk]}
        published = {"OwnerId": FLATCAR.image_owner, "Name": f"{FLATCAR.image_prefix}stable-1-hvm"}
        return {"Images": [image | published]}

    def close(self) -> None:
        """Nothing to give back."""

    def _item(self, instance: Instance) -> dict[str, Any]:
        now = self._world.now
        tagged = instance.tagged_until is None or now < instance.tagged_until
        item: dict[str, Any] = {
            "InstanceId": instance.id,
            "State": {"Name": instance.state(now)},
            "LaunchTime": instance.launched_at,
            "ClientToken": instance.token,
            "PublicDnsName": f"{instance.id}.example",
            "PublicIpAddress": "192.0.2.1",
            "Tags": [{"Key": k, "Value": v} for k, v in instance.tags.items()] if tagged else [],
        }
        if instance.state_reason:
            item["StateReason"] = {"Code": instance.state_reason}
        return item

    def _deny(self, tags: list[dict[str, str]]) -> None:
        if any(tag["Key"] == DENIED for tag in tags):
            self._world.counts["labels denied"] += 1
            if self._world.seed % 2:
                refuse("UnauthorizedOperation", 403)
            refuse("TagPolicyViolation", 400)

    def _fail_before(self, doing: str) -> None:
        if self._world.happens("ec2 throttled", doing):
            refuse("RequestLimitExceeded", 503)
        if self._world.happens("ec2 unauthorized", doing):
            refuse("UnauthorizedOperation", 403)
        if self._world.happens("ec2 server fault", doing):
            refuse("InternalError", 500)
        if self._world.happens("ec2 no answer", doing):
            raise ReadTimeoutError(endpoint_url="http://ec2")

    def _fail_after(self, doing: str) -> None:
        if self._world.happens("ec2 server fault, done", doing):
            refuse("InternalError", 500)
        if self._world.happens("ec2 no answer, done", doing):
            raise ReadTimeoutError(endpoint_url="http://ec2")


def refuse(code: str, status: int) -> NoReturn:
    """Answer with an error, as botocore raises it."""
    answer: Any = {
        "Error": {"Code": code, "Message": "simulated"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    raise ClientError(answer, "Simulated")


def _identity(instance: Instance) -> str:
    """EC2's signed document of the instance."""
    stated = {
        "instanceId": instance.id,
        "region": "us-east-1",
        "accountId": "123456789012",
        "pendingTime": instance.launched_at.isoformat(),
    }
    return SIGNER.sign(json.dumps(stated).encode()).decode()


def _tags(item: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in item["Tags"]}
