"""What EC2's failures mean for the caller: one table from its error codes to classes.

Promise: every failure of a call becomes one class below, and a class says what is *known*: surely
not done (`Refused` for good, `Retry` for now) or perhaps done (`Unknown`). A code that is not in the
table is judged by its HTTP status: 4xx is refused, 5xx may have been done. The table comes first
because some statuses mislead: EC2 sends "no capacity" as 500 and "too many requests" as 503, and
both are sure. `code` is EC2's word for it, or botocore's exception's name when EC2 said nothing.

A class speaks of *this* call only. When an earlier call with the same ClientToken ended `Unknown`,
then `Throttled`, `Unauthorized` or `Unreachable` on repeating it tell nothing about the earlier one:
repeat it again, the same in every byte, before trying anything else.
"""

from __future__ import annotations

from typing import ClassVar

from botocore import exceptions as botocore
from botocore.parsers import ResponseParserError

from atemporal.errors import (
    AtemporalError,
    NotFound,
    Refused,
    Retry,
    Service,
    Unavailable,
    Unknown,
)

MESSAGE_LIMIT = 500

FOREIGN = (botocore.BotoCoreError, botocore.ClientError, ResponseParserError)
"""All that a boto3 call raises."""


class CloudError(AtemporalError):
    """A call to EC2 failed; each one is a `Refused`, a `Retry` or an `Unknown` as well.

    `detail` is EC2's part of the sentence: whose call it was would mislead others that wait.
    """

    advice: ClassVar[str] = ""

    def __init__(self, doing: str, code: str, message: str = "") -> None:
        self.code = code
        answer = f"{code}: {message[:MESSAGE_LIMIT]}" if message else code
        self.detail = f"{answer} ({self.advice})" if self.advice else answer
        super().__init__(f"{doing}: {self.detail}")


class Rejected(CloudError, Refused):
    """EC2 will not do it: a wrong parameter, a missing image, too much user data."""

    advice = "refused for good: change the settings or the job"


class NoInstance(CloudError, NotFound):
    """EC2 does not know the id of an instance, or of a volume. A young one can be unknown for minutes
    and be there all the same."""

    advice = "unknown to EC2, or too young to be known everywhere"


class TokenSpent(CloudError, Refused):
    """The token's instance was launched earlier and has ended since: this attempt is over."""

    advice = "the attempt's instance has come and gone"


class TokenMismatch(CloudError, Refused):
    """The token is known with other parameters: look for the attempt's instance by its tags."""

    advice = "an earlier call of this attempt differed; look for its instance by tags"


class NoCapacity(CloudError, Retry):
    """Nothing of this type is to be had in this place; another type or zone may do."""

    advice = "another instance type, zone or capacity type may have room"


class OverQuota(CloudError, Retry):
    """The account's limit is reached: it holds for the whole region, so other zones do not help."""

    advice = "wait for instances to end, or have the account's limit raised"


class TooMany(CloudError, Retry):
    """More than EC2 launches by one call; fewer may do."""

    advice = "ask for fewer instances by one call"


class Throttled(CloudError, Retry):
    """Too many calls; the same one may be repeated later."""

    advice = "too many calls at once: repeated later"


class Unauthorized(CloudError, Retry):
    """This process may not: it concerns every job alike, so the jobs wait until it is mended."""

    advice = "check this process's AWS credentials and IAM policy, and the account"


class Forbidden(Unauthorized):
    """This process may not do this: a policy may forbid all, or a type, subnet, capacity type or tag."""


class TagRefused(Unauthorized):
    """A tag policy of the account's organization does not take a tag, wherever the call launches."""

    advice = (
        "the account's tag policy refuses a tag: correct ATEMPORAL_TAGS, the label, or the policy"
    )


class WrongImage(Unauthorized):
    """The image is not known to be of the OS family: nothing on it might end its instance in time.

    Ours to say, not EC2's, and before a call is sent.
    """

    advice = (
        "set ATEMPORAL_IMAGE_ID to an image of that family, or unset it for the newest one; if this is"
        " your own copy of one, name it in ATEMPORAL_TRUSTED_IMAGES"
    )


class Unreachable(CloudError, Unavailable):
    """EC2 did not answer a call that only reads."""

    advice = "asked again later; check the endpoint and the network"


class ServerFault(CloudError, Unknown):
    """EC2 failed in the middle: the thing may have been done."""

    advice = "may have been done; only the identical call may be repeated"


class NoAnswer(CloudError, Unknown):
    """No answer, or none that can be read: the thing may have been done."""

    advice = "may have been done; only the identical call may be repeated"


_CODES: dict[type[CloudError], str] = {
    NoCapacity: """
        InsufficientInstanceCapacity InsufficientHostCapacity InsufficientAddressCapacity
        InsufficientReservedInstanceCapacity InsufficientFreeAddressesInSubnet
        InsufficientVolumeCapacity InsufficientCapacity UnfulfillableCapacity SpotMaxPriceTooLow
        ReservationCapacityExceeded Unsupported VolumeTypeNotAvailableInZone
    """,
    OverQuota: """
        InstanceLimitExceeded VcpuLimitExceeded MaxSpotInstanceCountExceeded VolumeLimitExceeded
        MaxIOPSLimitExceeded NetworkInterfaceLimitExceeded ResourceLimitExceeded
        PendingVerification
    """,
    TooMany: "ResourceCountExceeded RequestResourceCountExceeded",
    Throttled: """
        RequestLimitExceeded EC2ThrottledException Throttling ThrottlingException
        ThrottledException RequestThrottled RequestThrottledException SlowDown
        BandwidthLimitExceeded TooManyRequestsException
    """,
    Unauthorized: """
        AuthFailure AccessDenied AccessDeniedException InvalidClientTokenId
        UnrecognizedClientException MissingAuthenticationToken IncompleteSignature
        SignatureDoesNotMatch OptInRequired Blocked AccountDisabled RequestExpired ExpiredToken
        ExpiredTokenException
    """,
    Forbidden: "UnauthorizedOperation AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    TagRefused: "TagPolicyViolation",
    ServerFault: """
        InternalError InternalFailure ServerInternal ServiceUnavailable Unavailable RequestTimeout
    """,
    TokenSpent: "IdempotentInstanceTerminated",
    TokenMismatch: "IdempotentParameterMismatch",
    NoInstance: "InvalidInstanceID.NotFound InvalidVolume.NotFound",
}
FAILURES: tuple[type[CloudError], ...] = (
    *(*_CODES, Rejected, NoAnswer),
    *(WrongImage, Unreachable),
)
"""Every class that the failure of a launch can be; the last two come of the look-up of its image."""
MAYBE_TAGS: tuple[type[CloudError], ...] = (Forbidden, TagRefused)
"""The refusals of which one tag of the call can be the cause."""

_CLASS_OF: dict[str, type[CloudError]] = {
    code: kind for kind, codes in _CODES.items() for code in codes.split()
}
_CLASS_OF_STATUS: dict[int, type[CloudError]] = {
    401: Unauthorized,
    403: Unauthorized,
    407: Unauthorized,
    408: ServerFault,
    429: Throttled,
}
_UNANSWERED = (botocore.HTTPClientError, botocore.ConnectionError, ResponseParserError)
_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.UnknownCredentialError,
    botocore.NoAuthTokenError,
    botocore.TokenRetrievalError,
    botocore.SSOError,
    botocore.ProfileNotFound,
)


def classify(
    error: Exception, doing: str, *, reading: bool = False, service: Service = Service.EC2
) -> CloudError:
    """Say what a boto3 call's exception means.

    `doing` names the call and its subject for the reader. A call that only reads has done nothing
    whatever happened to it, so with `reading` it is `Unreachable` where another would be `Unknown`.
    """
    if isinstance(error, botocore.ClientError):
        code = error.response["Error"].get("Code") or "Unknown"
        message = error.response["Error"].get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        kind = _CLASS_OF.get(code) or _CLASS_OF_STATUS.get(status)
        kind = kind or (ServerFault if status >= 500 else Rejected)
    else:
        code, message = type(error).__name__, str(error)
        if isinstance(error, _UNANSWERED):
            kind = NoAnswer
        elif isinstance(error, _NO_CREDENTIALS):
            kind = Unauthorized
        else:  # botocore refused its own input: nothing was sent
            kind = Rejected
    if reading and issubclass(kind, Unknown):
        kind = Unreachable
    failure = kind(doing, code, message)
    if isinstance(failure, Unavailable):
        failure.service = service
    return failure
