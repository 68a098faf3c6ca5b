"""The twin's key, which signs instance identity documents as EC2's Regions sign theirs.

Promise: one key and certificate a directory, made once; the certificate is in `identity.pem` there, for
`ATEMPORAL_IDENTITY_CERTIFICATES`.
"""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
)

CERTIFICATE = "identity.pem"
_KEY = "identity.key"
_VALID = timedelta(days=365 * 30)


class IdentitySigner:
    """Signs what it is given."""

    def __init__(self, directory: Path) -> None:
        """Take the directory's key, or make one."""
        if not (directory / CERTIFICATE).exists():
            _make(directory)
        key = load_pem_private_key((directory / _KEY).read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key
        self._certificate = x509.load_pem_x509_certificate((directory / CERTIFICATE).read_bytes())

    def sign(self, document: bytes) -> bytes:
        """The document within its signature, a PKCS #7: base64, in lines."""
        signed = (
            pkcs7.PKCS7SignatureBuilder()
            .set_data(document)
            .add_signer(self._certificate, self._key, SHA256())
            .sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCerts])
        )
        return base64.encodebytes(signed)


def _make(directory: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "atemporal twin")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(directory / _KEY, "wb", opener=_private) as file:
        file.write(secret)
    # Last, and in one step: where there is a certificate, there is its key.
    unfinished = directory / f"{CERTIFICATE}.new"
    unfinished.write_bytes(certificate.public_bytes(Encoding.PEM))
    unfinished.replace(directory / CERTIFICATE)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
