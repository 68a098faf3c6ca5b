"""An instance identity document and its signature: PKCS #7 as EC2's metadata service gives it.

Promise: what `read` returns was signed with one of the given certificates' keys, RSA over SHA-256, and
with nothing else: an algorithm that the signer names and this does not expect is refused.
Mechanism: `/latest/dynamic/instance-identity/rsa2048` is the base64 of a SignedData (RFC 5652), in BER,
with the document inside (EC2 User Guide, "Verify instance identity document"). Certificates that it may
carry are not looked at. No network is asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atemporal.errors import Denied

LONGEST = 16_384
"""Characters of base64 that are looked at; EC2's have about two thousand."""

_RSA = ("rsassa_pkcs1v15", "sha256_rsa")


class Unproven(Denied):
    """A machine has not shown that it is the instance it says it is."""


class Document(BaseModel):
    """What EC2 says of an instance. `pending_at` is when its launch began, to the second."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    instance_id: str = Field(validation_alias="instanceId")
    region: str
    account_id: str = Field(validation_alias="accountId")
    pending_at: datetime = Field(validation_alias="pendingTime")


def read(signed: str, certificates: Iterable[x509.Certificate]) -> Document:
    """Return the document in the base64 of a PKCS #7 that one of the certificates' keys has signed.

    Raises:
        Unproven: it is none, or none of the keys has signed it.
    """
    content, signature, covered = _opened(signed)
    for certificate in certificates:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            try:
                key.verify(signature, covered, padding.PKCS1v15(), SHA256())
            except InvalidSignature:
                continue
            return _document(content)
    raise Unproven("the instance identity document is not signed with a known certificate's key")


def _opened(signed: str) -> tuple[bytes, bytes, bytes]:
    """The content, the signature, and the bytes that the signature covers."""
    if len(signed) > LONGEST:
        raise Unproven(f"an instance identity document has at most {LONGEST} characters")
    try:
        raw = base64.b64decode("".join(signed.split()), validate=True)
        outer = cms.ContentInfo.load(raw, strict=True)
        if outer["content_type"].native != "signed_data":
            raise Unproven("the instance identity document is not signed data")
        data = outer["content"]
        content = bytes(data["encap_content_info"]["content"].native)
        (signer,) = data["signer_infos"]
        if signer["digest_algorithm"]["algorithm"].native != "sha256":
            raise Unproven("the instance identity document is not digested with SHA-256")
        if signer["signature_algorithm"]["algorithm"].native not in _RSA:
            raise Unproven("the instance identity document is not signed with RSA")
        return content, bytes(signer["signature"].native), _covered(signer, content)
    # Of damaged input the library raises the last two as well.
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unproven(f"the instance identity document can not be read: {error}") from None


def _covered(signer: Any, content: bytes) -> bytes:
    """What is signed: the content, or attributes with the content's digest (RFC 5652, 5.4)."""
    attributes = signer["signed_attrs"]
    if attributes.native is None:
        return content
    digests = [
        value.native
        for one in attributes
        if one["type"].native == "message_digest"
        for value in one["values"]
    ]
    if digests != [hashlib.sha256(content).digest()]:
        raise Unproven("the signature is of another instance identity document")
    encoded: bytes = attributes.untag().dump(force=True)
    return encoded


def _document(content: bytes) -> Document:
    try:
        return Document.model_validate(json.loads(content))
    except (ValidationError, ValueError):
        raise Unproven("what is signed is no instance identity document") from None
