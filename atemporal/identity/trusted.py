"""Which certificates a deployment trusts for instance identity documents, as PEM text.

Promise: a deployment that demands groups and the document has a certificate for its Region, or does not
start. One that demands neither launches one by one where none is known.
Mechanism: those that `aws.pem` has are AWS's own, each of one Region. A PEM file that the settings name
takes their place: of a Region that is not there, or of the twin. They are only text here, so who just
has to know that there are some needs no cryptography in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from atemporal.errors import Invalid
from atemporal.settings import PREFIX, Settings

DEFAULT_GROUP_SIZE = 200

_OF_REGION = re.compile(
    r"^# (?P<region>\S+)\n(?P<pem>-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----)",
    re.MULTILINE | re.DOTALL,
)
_ENDPOINTS = ("AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL")
_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def trusted(settings: Settings) -> str:
    """The certificates that this deployment trusts, as PEM.

    Raises:
        Invalid: there is none, or the file that the settings name can not be read.
    """
    if settings.identity_certificates:
        return _from_file(settings.identity_certificates)
    # boto3 takes its endpoint from these as well.
    endpoint = settings.ec2_endpoint_url or next(
        filter(None, map(os.environ.get, _ENDPOINTS)), None
    )
    if found := of_aws().get(settings.region) if _is_aws(endpoint) else None:
        return found
    where = endpoint or settings.region
    raise Invalid(
        {
            f"{PREFIX}IDENTITY_CERTIFICATES": f"no certificate is known for the instance identity "
            f"documents of {where}: name a PEM file with it (for a Region of AWS, from the EC2 User "
            f"Guide; a twin writes identity.pem into its directory). Or launch each instance by a "
            f"call of its own with {PREFIX}LAUNCH_GROUP_SIZE=1, or believe machines without a proof "
            f"with {PREFIX}INSTANCE_IDENTITY=off"
        }
    )


def can_verify(settings: Settings) -> bool:
    """Whether machines can be told their jobs here: by their documents, or because they are believed."""
    if settings.instance_identity == "off":
        return True
    try:
        trusted(settings)
    except Invalid:
        return False
    return True


def group_size(settings: Settings) -> int:
    """How many instances one call of RunInstances may ask for.

    Where the settings leave it open and no certificate is known, 1: such a machine proves nothing.

    Raises:
        Invalid: machines are to be launched together, and their documents can not be verified.
    """
    demanded = settings.launch_group_size
    if settings.instance_identity == "required" and demanded != 1:
        try:
            trusted(settings)
        except Invalid:
            if demanded is not None or settings.identity_certificates:
                raise
            return 1
    return DEFAULT_GROUP_SIZE if demanded is None else demanded


def of_aws() -> Mapping[str, str]:
    """AWS's own by Region, as far as they came with this release."""
    text = files("atemporal.identity").joinpath("aws.pem").read_text()
    return {match["region"]: match["pem"] for match in _OF_REGION.finditer(text)}


def _from_file(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise Invalid({f"{PREFIX}IDENTITY_CERTIFICATES": f"{path}: {error}"}) from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise Invalid({f"{PREFIX}IDENTITY_CERTIFICATES": f"{path}: it has no PEM certificate"})
    return text


def _is_aws(endpoint_url: str | None) -> bool:
    host = urlsplit(endpoint_url or "").hostname or ""
    return not endpoint_url or host.endswith(_AWS)
