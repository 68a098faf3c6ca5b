"""What each answer of EC2 means for the caller: surely not done, not now, or perhaps done."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest
from botocore import exceptions as botocore
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError

from atemporal.cloud import (
    Cloud,
    CloudError,
    Forbidden,
    NoAnswer,
    NoCapacity,
    NoInstance,
    OverQuota,
    Rejected,
    ServerFault,
    TagRefused,
    Throttled,
    TokenMismatch,
    TokenSpent,
    TooMany,
    Unauthorized,
    Unreachable,
    WrongImage,
)
from atemporal.cloud.caller import READS
from atemporal.cloud.faults import MESSAGE_LIMIT, classify
from atemporal.errors import (
    AtemporalError,
    Invalid,
    NotFound,
    Refused,
    Retry,
    Service,
    Unavailable,
    Unknown,
)
from atemporal.model import AttemptRef, Launch
from atemporal.settings import Settings

REF = AttemptRef(UUID("0190a000-0000-7000-8000-000000000001"), 1)
LAUNCH = Launch(
    image_id="ami-12345678",
    instance_type="t3.small",
    callback_base="http://127.0.0.1:8080",
    key_id="k1",
    deadline_s=3600,
)
URL = "http://127.0.0.1:1"


def answered(code: str, status: int, message: str = "said EC2") -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "r",
                "HTTPHeaders": {},
                "RetryAttempts": 0,
                "HostId": "",
            },
        },
        "RunInstances",
    )


@pytest.mark.parametrize(
    ("code", "status", "kind", "known"),
    [
        ("InsufficientInstanceCapacity", 500, NoCapacity, Retry),
        ("InsufficientFreeAddressesInSubnet", 400, NoCapacity, Retry),
        ("SpotMaxPriceTooLow", 400, NoCapacity, Retry),
        ("Unsupported", 400, NoCapacity, Retry),
        ("VcpuLimitExceeded", 400, OverQuota, Retry),
        ("InstanceLimitExceeded", 400, OverQuota, Retry),
        ("PendingVerification", 400, OverQuota, Retry),
        ("ResourceCountExceeded", 400, TooMany, Retry),
        ("RequestResourceCountExceeded", 400, TooMany, Retry),
        ("RequestLimitExceeded", 503, Throttled, Retry),
        ("Throttling", 400, Throttled, Retry),
        ("UnauthorizedOperation", 403, Forbidden, Retry),
        ("TagPolicyViolation", 400, TagRefused, Retry),
        ("AuthFailure", 401, Unauthorized, Retry),
        ("ExpiredToken", 400, Unauthorized, Retry),
        ("IdempotentInstanceTerminated", 400, TokenSpent, Refused),
        ("IdempotentParameterMismatch", 400, TokenMismatch, Refused),
        ("InvalidInstanceID.NotFound", 400, NoInstance, NotFound),
        ("InvalidAMIID.NotFound", 400, Rejected, Refused),
        ("InvalidUserData.Malformed", 400, Rejected, Refused),
        ("InvalidParameterValue", 400, Rejected, Refused),
        ("UnsupportedOperation", 400, Rejected, Refused),
        ("InternalError", 500, ServerFault, Unknown),
        ("Unavailable", 503, ServerFault, Unknown),
        ("RequestTimeout", 400, ServerFault, Unknown),
        ("NeverHeardOf", 400, Rejected, Refused),
        ("NeverHeardOf", 403, Unauthorized, Retry),
        ("NeverHeardOf", 429, Throttled, Retry),
        ("NeverHeardOf", 408, ServerFault, Unknown),
        ("NeverHeardOf", 500, ServerFault, Unknown),
        ("502", 502, ServerFault, Unknown),
    ],
)
def test_a_code_has_one_meaning(
    code: str, status: int, kind: type[CloudError], known: type[AtemporalError]
) -> None:
    error = classify(answered(code, status), "launching x")

    assert type(error) is kind
    assert isinstance(error, known)
    assert error.code == code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (botocore.ConnectTimeoutError(endpoint_url=URL), NoAnswer),
        (botocore.ReadTimeoutError(endpoint_url=URL), NoAnswer),
        (botocore.ConnectionClosedError(endpoint_url=URL), NoAnswer),
        (botocore.EndpointConnectionError(endpoint_url=URL), NoAnswer),
        (botocore.SSLError(endpoint_url=URL, error=OSError("bad certificate")), NoAnswer),
        (botocore.HTTPClientError(error="cut off"), NoAnswer),
        (ResponseParserError("not XML"), NoAnswer),
        (botocore.NoCredentialsError(), Unauthorized),
        (botocore.PartialCredentialsError(provider="env", cred_var="x"), Unauthorized),
        (botocore.CredentialRetrievalError(provider="sso", error_msg="x"), Unauthorized),
        (botocore.ParamValidationError(report="bad"), Rejected),
    ],
)
def test_without_an_answer_it_may_have_been_done_unless_nothing_was_sent(
    error: Exception, kind: type[CloudError]
) -> None:
    known = classify(error, "launching x")

    assert type(known) is kind
    assert known.code == type(error).__name__


def test_every_failure_is_exactly_one_of_refused_retry_unknown() -> None:
    for kind in CloudError.__subclasses__():
        roots = [root for root in (Refused, Retry, Unknown) if issubclass(kind, root)]
        assert len(roots) == 1, kind


def test_a_call_that_only_reads_is_never_perhaps_done() -> None:
    for error in (answered("InternalError", 500), botocore.ReadTimeoutError(endpoint_url=URL)):
        known = classify(error, "listing", reading=True)
        assert isinstance(known, Unreachable)
        assert isinstance(known, Unavailable)
        assert not isinstance(known, Unknown)
        assert known.service is Service.EC2
    assert type(classify(answered("Throttling", 400), "listing", reading=True)) is Throttled


def test_the_message_says_what_was_tried_what_ec2_said_and_what_to_do() -> None:
    error = classify(
        answered("VcpuLimitExceeded", 400, "You have requested more vCPU"), "launching attempt x.1"
    )

    assert str(error) == (
        "launching attempt x.1: VcpuLimitExceeded: You have requested more vCPU"
        " (wait for instances to end, or have the account's limit raised)"
    )
    assert str(error) == f"launching attempt x.1: {error.detail}"
    long = classify(answered("UnauthorizedOperation", 403, "e" * 5000), "launching x")
    assert len(str(long)) < MESSAGE_LIMIT + 200


# From here on a Cloud is asked, and what goes over the wire is answered here, without a network.

Reply = tuple[int, str]
Answer = Reply | Exception
Form = dict[str, str]


class Wire:
    """Stands where botocore's HTTP connection is: keeps what was sent, answers as told."""

    def __init__(self) -> None:
        self.sent: list[Form] = []
        self.answer: Callable[[Form], Answer] = lambda form: (200, "")
        self.images = images()

    def count(self, action: str) -> int:
        return sum(form["Action"] == action for form in self.sent)

    def send(self, _: Any, request: AWSPreparedRequest) -> AWSResponse:
        form = {name: values[0] for name, values in parse_qs(_text(request.body)).items()}
        self.sent.append(form)
        if form["Action"] == "DescribeImages":
            return _response(*self.images)
        answer = self.answer(form)
        if isinstance(answer, Exception):
            raise answer
        return _response(*answer)


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._data


def _text(body: Any) -> str:
    return body.decode() if isinstance(body, bytes) else str(body)


def _response(status: int, xml: str) -> AWSResponse:
    return AWSResponse(URL, status, {}, _Body(xml.encode()))  # type: ignore[arg-type]


def images(*items: str) -> Reply:
    """An answer of DescribeImages; an item is `<name>text</name>...`."""
    inner = "".join(f"<item>{item}</item>" for item in items)
    return 200, f"<DescribeImagesResponse><imagesSet>{inner}</imagesSet></DescribeImagesResponse>"


def image(name: str, owner: str) -> str:
    """An item of `images`: the one that `LAUNCH` asks for, as EC2 lists it."""
    named = f"<name>{name}</name>" if name else ""
    return f"<imageId>{LAUNCH.image_id}</imageId><imageOwnerId>{owner}</imageOwnerId>{named}"


FLATCAR_OWNER = "075585003325"
FLATCAR_IMAGE = image("Flatcar-stable-4459.2.3-hvm", FLATCAR_OWNER)


def failure(code: str, status: int) -> Reply:
    return status, (
        f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors>"
        "<RequestID>r</RequestID></Response>"
    )


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(URLLib3Session, "send", lambda *args: wire.send(*args))
    return wire


@pytest.fixture
def cloud(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with Cloud(Settings(ec2_endpoint_url=URL)) as cloud:
        yield cloud


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failure("InsufficientInstanceCapacity", 500), NoCapacity),
        (failure("RequestLimitExceeded", 503), Throttled),
        (failure("InternalError", 500), ServerFault),
        ((200, "<html>a proxy's page"), NoAnswer),
        ((200, "<RunInstancesResponse/>"), NoAnswer),
        ((502, "<html>Bad Gateway"), ServerFault),
        (botocore.ReadTimeoutError(endpoint_url=URL), NoAnswer),
        (botocore.EndpointConnectionError(endpoint_url=URL), NoAnswer),
    ],
)
def test_a_launch_is_sent_once_and_its_failure_is_named(
    cloud: Cloud, wire: Wire, answer: Answer, kind: type[CloudError]
) -> None:
    wire.answer = lambda form: answer

    with pytest.raises(kind, match=re.escape(REF.id)):
        cloud.run(REF, LAUNCH, b"#!/bin/sh")

    assert wire.count("RunInstances") == 1


def test_a_repeated_launch_sends_the_same_bytes(cloud: Cloud, wire: Wire) -> None:
    wire.answer = lambda form: failure("InternalError", 500)
    for _ in range(2):
        with pytest.raises(ServerFault):
            cloud.run(REF, LAUNCH, b"#!/bin/sh")

    first, second = (form for form in wire.sent if form["Action"] == "RunInstances")
    assert first == second
    assert first["ClientToken"] == f"{REF.id}.0"
    assert len(first["ClientToken"]) <= 64


def test_optional_parts_of_a_launch_are_sent_when_given(cloud: Cloud, wire: Wire) -> None:
    wire.answer = lambda form: failure("InternalError", 500)
    launch = LAUNCH.model_copy(
        update={
            "placement": 3,
            "capacity_type": "spot",
            "subnet_id": "subnet-1",
            "security_group_ids": ("sg-1", "sg-2"),
            "key_name": "operator",
            "instance_profile": "arn:aws:iam::1:instance-profile/p",
            "disk_gb": 40,
        }
    )
    with pytest.raises(ServerFault):
        cloud.run(REF, launch, b"#!/bin/sh")

    form = wire.sent[-1]
    assert form["ClientToken"] == f"{REF.id}.3"
    assert form["InstanceMarketOptions.MarketType"] == "spot"
    assert form["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert form["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == "terminate"
    assert form["SubnetId"] == "subnet-1"
    assert [form["SecurityGroupId.1"], form["SecurityGroupId.2"]] == ["sg-1", "sg-2"]
    assert form["KeyName"] == "operator"
    assert form["IamInstanceProfile.Arn"] == "arn:aws:iam::1:instance-profile/p"


def _disks(form: Form) -> list[Form]:
    disks: dict[str, Form] = {}
    for name, value in form.items():
        if name.startswith("BlockDeviceMapping."):
            _, number, key = name.split(".", 2)
            disks.setdefault(number, {})[key] = value
    return list(disks.values())


@pytest.mark.parametrize(("disk_gb", "root_size"), [(None, "9"), (40, "40")])
def test_every_disk_of_the_image_is_encrypted_and_goes_with_the_instance(
    cloud: Cloud, wire: Wire, disk_gb: int | None, root_size: str
) -> None:
    wire.images = images(
        f"{FLATCAR_IMAGE}<rootDeviceName>/dev/sda1</rootDeviceName>"
        "<blockDeviceMapping>"
        "<item><deviceName>/dev/sda1</deviceName><ebs><volumeSize>9</volumeSize></ebs></item>"
        "<item><deviceName>/dev/sdb</deviceName><ebs><volumeSize>5</volumeSize></ebs></item>"
        "<item><deviceName>/dev/sdc</deviceName><virtualName>ephemeral0</virtualName></item>"
        "</blockDeviceMapping>"
    )
    wire.answer = lambda form: failure("InternalError", 500)
    for _ in range(2):
        with pytest.raises(ServerFault):
            cloud.run(REF, LAUNCH.model_copy(update={"disk_gb": disk_gb}), b"")

    safe = {"Ebs.DeleteOnTermination": "true", "Ebs.Encrypted": "true"}
    assert _disks(wire.sent[-1]) == [
        {"DeviceName": "/dev/sda1", "Ebs.VolumeSize": root_size, **safe},
        {"DeviceName": "/dev/sdb", "Ebs.VolumeSize": "5", **safe},
    ]
    assert wire.count("DescribeImages") == 1


def _ids(form: Form) -> list[str]:
    return [value for name, value in form.items() if name.startswith("InstanceId.")]


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InvalidInstanceID.NotFound", 400, NoInstance),
        ("OperationNotPermitted", 400, Rejected),
        ("InternalError", 500, ServerFault),
    ],
)
def test_one_bad_id_saves_no_other_instance(
    cloud: Cloud, wire: Wire, code: str, status: int, kind: type[CloudError]
) -> None:
    ids = [f"i-{number:04d}" for number in range(250)]
    ended: set[str] = set()

    def terminate(form: Form) -> Answer:
        if "i-0123" in _ids(form):
            return failure(code, status)
        ended.update(_ids(form))
        return 200, "<TerminateInstancesResponse/>"

    wire.answer = terminate
    failures = cloud.terminate(ids)

    assert ended == set(ids) - {"i-0123"}
    assert list(failures) == ["i-0123"]
    assert type(failures["i-0123"]) is kind
    assert max(len(_ids(form)) for form in wire.sent) == 250


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("UnauthorizedOperation", 403, Forbidden), ("InternalError", 500, ServerFault)],
)
def test_what_holds_for_every_call_is_not_asked_for_every_id(
    cloud: Cloud, wire: Wire, code: str, status: int, kind: type[CloudError]
) -> None:
    wire.answer = lambda form: failure(code, status)
    ids = [f"i-{number:04d}" for number in range(500)]

    failures = cloud.terminate(ids)

    assert set(failures) == set(ids)
    assert {type(error) for error in failures.values()} == {kind}
    assert len(wire.sent) < 100


def test_ending_nothing_and_describing_nothing_ask_nothing(cloud: Cloud, wire: Wire) -> None:
    assert cloud.terminate([]) == {}
    assert cloud.describe([]) == {}
    assert wire.sent == []


@pytest.mark.parametrize("answer", [failure("InvalidAMIID.NotFound", 400), (200, "<r/>")])
def test_an_image_that_ec2_does_not_show_is_looked_at_once_for_many_launches(
    cloud: Cloud, wire: Wire, answer: Reply
) -> None:
    wire.images = answer
    wire.answer = lambda form: failure("InvalidAMIID.NotFound", 400)
    for _ in range(3):
        with pytest.raises(Rejected):
            cloud.run(REF, LAUNCH, b"")

    assert (wire.count("DescribeImages"), wire.count("RunInstances")) == (1, 3)


def test_an_image_that_could_not_be_looked_at_is_looked_at_again(cloud: Cloud, wire: Wire) -> None:
    wire.images = failure("InternalError", 500)
    for _ in range(2):
        with pytest.raises(Unreachable):
            cloud.run(REF, LAUNCH, b"")

    assert wire.count("RunInstances") == 0, "its family is not known"
    assert wire.count("DescribeImages") == 2 * READS


def test_the_image_is_looked_up_once_for_many_launches(cloud: Cloud, wire: Wire) -> None:
    wire.images = images(
        "<imageId>ami-new</imageId><creationDate>2026-02-01T00:00:00.000Z</creationDate>",
        "<imageId>ami-old</imageId><creationDate>2026-01-01T00:00:00.000Z</creationDate>",
    )

    assert [cloud.resolve_image() for _ in range(3)] == ["ami-new"] * 3

    assert wire.count("DescribeImages") == 1
    assert wire.sent[0]["Owner.1"] == "075585003325"


def test_an_image_named_in_the_settings_is_not_looked_up(wire: Wire, cloud: Cloud) -> None:
    with Cloud(Settings(ec2_endpoint_url=URL, image_id="ami-mine")) as pinned:
        assert pinned.resolve_image() == "ami-mine"
    assert wire.sent == []


UBUNTU = image("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server", "099720109477")
COPY = image("our-flatcar", "123456789012")


class TestImagesOfAnotherFamily:
    """On an image that does not know our user-data nothing would end the machine."""

    @pytest.mark.parametrize(
        "other",
        [
            UBUNTU,
            image("al2023-ami-2023.8-x86_64", "137112412989"),
            COPY,
            image("Flatcar-stable-4459.2.3-hvm", "666666666666"),
            image("nothing-like-Flatcar-stable-hvm", FLATCAR_OWNER),
            image("", FLATCAR_OWNER),
        ],
    )
    def test_none_is_bought_and_the_refusal_says_what_to_set(
        self, cloud: Cloud, wire: Wire, other: str
    ) -> None:
        wire.images = images(other)
        with pytest.raises(WrongImage) as refused:
            cloud.run(REF, LAUNCH, b"")
        assert wire.count("RunInstances") == 0
        for word in (LAUNCH.image_id, "flatcar", "ATEMPORAL_IMAGE_ID", "ATEMPORAL_TRUSTED_IMAGES"):
            assert word in str(refused.value)

    @pytest.mark.parametrize(
        "name",
        [
            "Flatcar-stable-4459.2.3-hvm",
            "Flatcar-beta-4593.1.0-hvm",
            "Flatcar-lts-4081.3.6-arm64-hvm",
        ],
    )
    def test_every_image_of_the_publisher_is_taken(
        self, cloud: Cloud, wire: Wire, name: str
    ) -> None:
        wire.images = images(image(name, FLATCAR_OWNER))
        wire.answer = lambda form: failure("InsufficientInstanceCapacity", 500)
        with pytest.raises(NoCapacity):
            cloud.run(REF, LAUNCH, b"")
        assert wire.count("RunInstances") == 1

    @pytest.mark.parametrize("trusted", [LAUNCH.image_id, f"ami-other,{LAUNCH.image_id}"])
    def test_an_image_that_the_operator_trusts_is_taken(
        self, cloud: Cloud, wire: Wire, monkeypatch: pytest.MonkeyPatch, trusted: str
    ) -> None:
        monkeypatch.setenv("ATEMPORAL_TRUSTED_IMAGES", trusted)
        wire.images = images(COPY)
        wire.answer = lambda form: failure("InsufficientInstanceCapacity", 500)
        with Cloud(Settings(ec2_endpoint_url=URL)) as trusting, pytest.raises(NoCapacity):
            trusting.run(REF, LAUNCH, b"")

    def test_trust_in_another_image_is_no_trust_in_this_one(self, wire: Wire) -> None:
        wire.images = images(COPY)
        trusted = Settings(ec2_endpoint_url=URL, trusted_images=("ami-other",))
        with Cloud(trusted) as trusting, pytest.raises(WrongImage):
            trusting.run(REF, LAUNCH, b"")

    def test_an_image_that_can_not_be_looked_at_is_not_launched(
        self, wire: Wire, cloud: Cloud
    ) -> None:
        wire.images = failure("UnauthorizedOperation", 403)
        with pytest.raises(Unauthorized):
            cloud.run(REF, LAUNCH, b"")
        assert wire.count("RunInstances") == 0


def test_a_region_without_the_image_says_what_to_set(cloud: Cloud) -> None:
    with pytest.raises(Refused, match="set ATEMPORAL_IMAGE_ID"):
        cloud.resolve_image()


def test_an_older_instance_types_console_is_read_without_latest(cloud: Cloud, wire: Wire) -> None:
    def console(form: Form) -> Answer:
        if form.get("Latest") == "true":
            return failure("UnsupportedOperation", 400)
        text = base64.b64encode("atemporal-exit é".encode() + b"\xff").decode()
        return 200, f"<GetConsoleOutputResponse><output>{text}</output></GetConsoleOutputResponse>"

    wire.answer = console
    assert cloud.console("i-1") == "atemporal-exit é\N{REPLACEMENT CHARACTER}"

    wire.answer = lambda form: (200, "<GetConsoleOutputResponse/>")
    assert cloud.console("i-1") == ""
    wire.answer = lambda form: failure("InvalidInstanceID.NotFound", 400)
    assert cloud.console("i-1") == ""
    wire.answer = lambda form: failure("UnauthorizedOperation", 403)
    with pytest.raises(Unauthorized):
        cloud.console("i-1")


@pytest.mark.parametrize(("live", "calls"), [(True, ["true", None]), (False, [None])])
def test_of_a_dead_machine_the_posted_copy_is_enough(
    cloud: Cloud, wire: Wire, live: bool, calls: list[str | None]
) -> None:
    asked: list[str | None] = []

    def console(form: Form) -> Answer:
        asked.append(form.get("Latest"))
        return 200, "<GetConsoleOutputResponse/>"

    wire.answer = console
    assert cloud.console("i-1", live=live) == ""
    assert asked == calls


def test_no_answer_has_more_instances_than_a_process_can_parse_in_little_memory(
    cloud: Cloud, wire: Wire
) -> None:
    sizes: list[int] = []

    def page(form: Form) -> Answer:
        first, most = int(form.get("NextToken", "0")), int(form["MaxResults"])
        numbers = range(first, min(first + most, 250))
        sizes.append(len(numbers))
        items = "".join(
            f"<item><instancesSet><item><instanceId>i-{n:017x}</instanceId>"
            "<instanceState><name>running</name></instanceState></item></instancesSet></item>"
            for n in numbers
        )
        token = f"<nextToken>{numbers.stop}</nextToken>" if numbers.stop < 250 else ""
        body = f"<reservationSet>{items}</reservationSet>{token}"
        return 200, f"<DescribeInstancesResponse>{body}</DescribeInstancesResponse>"

    wire.answer = page
    ids = [f"i-{n:017x}" for n in range(250)]
    for read in (cloud.all, lambda: cloud.describe(ids)):
        sizes.clear()
        assert len(read()) == 250
        assert max(sizes) <= 100


@pytest.mark.parametrize("wrong", [{"ec2_endpoint_url": "not a url"}, {"region": "us east"}])
def test_a_malformed_setting_is_named_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=re.escape(next(iter(wrong.values())))):
        Cloud(Settings(**wrong))


def test_a_missing_profile_is_a_matter_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this")

    with pytest.raises(Unauthorized, match="nobody-has-this"):
        Cloud(Settings())
