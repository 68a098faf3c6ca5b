"""An `amqps` broker shows who it is: a certificate that is trusted, and that is its own host's."""

from __future__ import annotations

import contextlib
import datetime
import gc
import ipaddress
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atemporal.broker import Link
from atemporal.errors import Unavailable

HEADER = b"AMQP\x00\x00\x09\x01"
HERE = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("elsewhere.example")


@dataclass
class Listener:
    """Takes connections by TLS; `heard` is what each client said first, once it trusted us."""

    port: int
    certificate: Path
    heard: list[bytes] = field(default_factory=list)


def _certificate(name: x509.GeneralName, folder: Path) -> Path:
    """A certificate of its own authority, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "broker.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@pytest.fixture(params=[HERE])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    path = _certificate(request.param, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Listener(server.getsockname()[1], path)

        def serve() -> None:
            # It ends when the socket is closed.
            while True:
                try:
                    plain, _ = server.accept()
                except OSError:
                    return
                with (
                    contextlib.suppress(OSError),
                    plain,
                    context.wrap_socket(plain, server_side=True) as tls,
                ):
                    made.heard.append(tls.recv(len(HEADER)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield made
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def why_not(listener: Listener) -> str:
    """Why a link does not connect; the listener is no broker and ends each connection."""
    link = Link(f"amqps://u:p@127.0.0.1:{listener.port}//", name="test")
    with pytest.raises(Unavailable) as refused:
        link.connect()
    why = str(refused.value)
    del refused, link
    # py-amqp leaves the socket of a handshake that failed to the garbage collector: here, and not in
    # whatever test comes after this one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return why


def test_a_trusted_certificate_of_the_host_is_taken(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(listener.certificate))
    assert "certificate" not in why_not(listener)
    assert HEADER in listener.heard


@pytest.mark.parametrize("listener", [ELSEWHERE], indirect=True)
def test_a_trusted_certificate_of_another_host_is_refused(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(listener.certificate))
    assert "not valid for '127.0.0.1'" in why_not(listener)
    assert listener.heard == []


def test_a_certificate_that_nobody_trusts_is_refused(listener: Listener) -> None:
    assert "certificate verify failed" in why_not(listener)
    assert listener.heard == []
