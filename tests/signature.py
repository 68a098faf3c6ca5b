"""How AWS's own library signs what a machine asked in the name of its role."""

from __future__ import annotations

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.callback_api import CREDENTIALS, REGION


def signed(service: str, url: str, headers: dict[str, str], body: bytes) -> str:
    """The header `Authorization` of a request with these headers and this body."""
    names = headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    kept = {name: value for name, value in headers.items() if name.lower() in names}
    request = AWSRequest("POST", url, kept, body)
    request.context["timestamp"] = headers["X-Amz-Date"]
    key = Credentials(CREDENTIALS["AccessKeyId"], CREDENTIALS["SecretAccessKey"])
    signer = SigV4Auth(key, service, REGION)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    credential = f"{key.access_key}/{signer.credential_scope(request)}"
    return (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(names)}, "
        f"Signature={signer.signature(text, request)}"
    )
