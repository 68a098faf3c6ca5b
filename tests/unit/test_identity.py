"""Instance identity documents: what is believed, and what is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from atemporal.errors import Invalid
from atemporal.identity.certificates import certificates
from atemporal.identity.document import Unproven, read
from atemporal.identity.signer import CERTIFICATE, IdentitySigner
from atemporal.identity.trusted import DEFAULT_GROUP_SIZE, group_size, of_aws
from atemporal.settings import Settings, load

DOCUMENT = json.dumps(
    {
        "accountId": "123456789012",
        "instanceId": "i-0123456789abcdef0",
        "region": "us-east-1",
        "pendingTime": "2030-01-01T00:00:05Z",
        "privateIp": "10.0.0.1",
        "billingProducts": None,
    }
).encode()
Options = pkcs7.PKCS7Options


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> IdentitySigner:
    return IdentitySigner(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> IdentitySigner:
    return IdentitySigner(tmp_path_factory.mktemp("other"))


def _trusts(signer: IdentitySigner) -> list[x509.Certificate]:
    return [signer._certificate]


def _signed(signer: IdentitySigner, *options: pkcs7.PKCS7Options, digest: Any = None) -> bytes:
    made = pkcs7.PKCS7SignatureBuilder().set_data(DOCUMENT)
    made = made.add_signer(signer._certificate, signer._key, digest or SHA256())
    return made.sign(Encoding.DER, [Options.Binary, *options])


def _as_ec2_writes_it(encoded: bytes) -> bytes:
    """The same in BER: lengths that are not given before, the content in pieces."""
    tag, start, end = _element(encoded, 0)
    inside = encoded[start:end]
    if not tag & 0x20:
        if tag != 0x04 or len(inside) < 100:
            return encoded[:end]
        pieces = [inside[at : at + 100] for at in range(0, len(inside), 100)]
        return b"\x24\x80" + b"".join(b"\x04" + bytes([len(p)]) + p for p in pieces) + b"\0\0"
    parts, at = b"", 0
    while at < len(inside):
        after = _element(inside, at)[2]
        # Attributes are signed in DER, and the signature is one string.
        last = inside[at] in (0x04, 0xA0) and tag == 0x30 and after > len(inside) - 300
        parts += inside[at:after] if last else _as_ec2_writes_it(inside[at:after])
        at = after
    return bytes([tag]) + b"\x80" + parts + b"\0\0"


def _element(encoded: bytes, at: int) -> tuple[int, int, int]:
    """An element of DER: its tag, and where its content begins and ends."""
    size, start = encoded[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(encoded[at + 2 : start], "big")
    return encoded[at], start, start + size


@pytest.mark.parametrize(
    "form",
    [
        lambda one: _signed(one, Options.NoCerts),
        lambda one: _signed(one),
        lambda one: _signed(one, Options.NoAttributes, Options.NoCerts),
        lambda one: _as_ec2_writes_it(_signed(one, Options.NoCerts)),
        lambda one: _as_ec2_writes_it(_signed(one, Options.NoAttributes)),
    ],
)
def test_a_signed_document_is_read_in_every_form_it_may_have(
    signer: IdentitySigner, other: IdentitySigner, form: Callable[[IdentitySigner], bytes]
) -> None:
    text = base64.encodebytes(form(signer)).decode()
    found = read(text, [*_trusts(other), *_trusts(signer)])
    assert found.instance_id == "i-0123456789abcdef0"
    assert (found.region, found.account_id) == ("us-east-1", "123456789012")
    assert found.pending_at == datetime(2030, 1, 1, 0, 0, 5, tzinfo=UTC)


def test_the_form_that_ec2_gives_is_of_unknown_length(signer: IdentitySigner) -> None:
    # 0x80: the length is found at the end. Else the test above would show nothing of it.
    assert _as_ec2_writes_it(_signed(signer))[:2] == b"\x30\x80"


def _changed_content(signer: IdentitySigner) -> bytes:
    return _signed(signer).replace(b"i-0123456789abcdef0", b"i-0123456789abcdef1")


def _changed_without_attributes(signer: IdentitySigner) -> bytes:
    signed = _signed(signer, Options.NoAttributes)
    return signed.replace(b"i-0123456789abcdef0", b"i-0123456789abcdef1")


def _changed_signature(signer: IdentitySigner) -> bytes:
    signed = _signed(signer, Options.NoCerts)
    return signed[:-1] + bytes([signed[-1] ^ 1])


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (_changed_content, "another instance identity document"),
        (_changed_without_attributes, "not signed with a known certificate"),
        (_changed_signature, "not signed with a known certificate"),
        (lambda one: _signed(one, digest=SHA512()), "not digested with SHA-256"),
        (lambda one: _signed(one, Options.DetachedSignature), "another|can not be read"),
        (lambda _: DOCUMENT, "can not be read"),
        (lambda _: b"", "can not be read"),
        (lambda one: _signed(one)[:-40], "can not be read"),
        (lambda _: b"\x30\x80" * 4000, "can not be read"),
        (lambda _: b"x" * 20_000, "at most 16384"),
    ],
)
def test_what_is_not_signed_as_ec2_signs_is_not_believed(
    signer: IdentitySigner, form: Callable[[IdentitySigner], bytes], why: str
) -> None:
    with pytest.raises(Unproven, match=why):
        read(base64.b64encode(form(signer)).decode(), _trusts(signer))


@pytest.mark.parametrize("text", ["not base64!", "é", "\0", "===="])
def test_what_is_no_base64_is_not_believed(signer: IdentitySigner, text: str) -> None:
    with pytest.raises(Unproven):
        read(text, _trusts(signer))


def test_the_certificate_that_a_document_carries_proves_nothing(
    signer: IdentitySigner, other: IdentitySigner
) -> None:
    carried = base64.b64encode(_signed(other)).decode()
    assert read(carried, _trusts(other)).region == "us-east-1"
    with pytest.raises(Unproven, match="known certificate"):
        read(carried, _trusts(signer))
    with pytest.raises(Unproven, match="known certificate"):
        read(carried, [])


@pytest.mark.parametrize("stated", [b"{}", b"[]", b"no json", b'{"instanceId": 7}', b"\xff"])
def test_what_is_signed_and_is_no_document_is_not_believed(
    signer: IdentitySigner, stated: bytes
) -> None:
    with pytest.raises(Unproven, match="is no instance identity document"):
        read(signer.sign(stated).decode(), _trusts(signer))


def test_a_twins_key_is_made_once_and_its_own(tmp_path: Path) -> None:
    signed = IdentitySigner(tmp_path).sign(DOCUMENT).decode()
    again = IdentitySigner(tmp_path)
    settings = load(identity_certificates=str(tmp_path / CERTIFICATE))
    assert read(signed, certificates(settings)) == read(signed, _trusts(again))
    assert (tmp_path / "identity.key").stat().st_mode & 0o077 == 0


def test_aws_certificates_are_whole_and_of_amazon() -> None:
    found = {
        region: x509.load_pem_x509_certificate(pem.encode()) for region, pem in of_aws().items()
    }
    assert {"us-east-1", "us-west-2", "eu-central-1"} <= found.keys()
    for one in found.values():
        key = one.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 2048
        # They sign themselves: one letter that is wrong anywhere is seen here.
        key.verify(one.signature, one.tbs_certificate_bytes, padding.PKCS1v15(), SHA256())
        assert "O=Amazon Web Services LLC" in one.subject.rfc4514_string()
        assert one.not_valid_before_utc.year in range(2015, 2026)
        assert one.not_valid_after_utc.year > 2190
    assert len({one.fingerprint(SHA256()) for one in found.values()}) == len(found)


@pytest.mark.parametrize(
    "endpoint", [None, "https://ec2.us-east-1.amazonaws.com", "https://ec2.us-east-1.api.aws"]
)
def test_awss_own_certificate_is_taken_for_its_region_only(endpoint: str | None) -> None:
    settings = load(region="us-east-1", ec2_endpoint_url=endpoint)
    assert list(certificates(settings)) == [
        x509.load_pem_x509_certificate(of_aws()["us-east-1"].encode())
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": "mars-north-1"},
        {"ec2_endpoint_url": "http://127.0.0.1:4500"},
        {"ec2_endpoint_url": "https://amazonaws.com.example.org"},
    ],
)
def test_where_no_certificate_is_known_the_reader_learns_what_to_do(wrong: dict[str, str]) -> None:
    with pytest.raises(Invalid) as refused:
        certificates(load(**wrong))
    why = refused.value.fields["ATEMPORAL_IDENTITY_CERTIFICATES"]
    assert "LAUNCH_GROUP_SIZE=1" in why
    assert "INSTANCE_IDENTITY=off" in why
    assert next(iter(wrong.values())) in why


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL"])
def test_an_endpoint_that_boto3_is_given_counts_as_well(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:4500")
    with pytest.raises(Invalid, match=r"127\.0\.0\.1:4500"):
        certificates(load())


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\x00"])
@pytest.mark.parametrize("read_by", [certificates, group_size])
def test_a_file_without_a_certificate_is_told(
    tmp_path: Path, content: bytes | None, read_by: Callable[[Settings], object]
) -> None:
    path = tmp_path / "identity.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Invalid, match=str(path)):
        read_by(load(identity_certificates=str(path)))


def test_a_certificate_that_can_not_be_read_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "identity.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(Invalid, match=str(path)):
        certificates(load(identity_certificates=str(path)))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"region": "us-east-1"}, DEFAULT_GROUP_SIZE),
        ({"region": "us-east-1", "launch_group_size": 7}, 7),
        ({"region": "mars-north-1"}, 1),
        ({"ec2_endpoint_url": "http://127.0.0.1:4500"}, 1),
        ({"region": "mars-north-1", "launch_group_size": 1}, 1),
        ({"region": "mars-north-1", "instance_identity": "off"}, DEFAULT_GROUP_SIZE),
    ],
)
def test_machines_are_launched_together_where_they_can_prove_which_they_are(
    settings: dict[str, Any], size: int
) -> None:
    assert group_size(load(**settings)) == size
