#!/usr/bin/env bash
# kombu 5.7.0, amqp 5.4.2: an amqps:// URL accepts any host's certificate, if its authority is trusted.
#
# The chain is verified, so it looks safe: a self-signed certificate is refused. But the name is compared
# only when the `ssl` options have a server_hostname; `amqps://HOST` and `ssl=True` give none, and no SNI is
# sent either. Whoever has a certificate of any public authority for any name, and is on the way, reads
# the password. `ssl={"server_hostname": None}` beside the URL takes the URL's host. Seen: a certificate of
# elsewhere.example is accepted from 127.0.0.1, and refused with that option.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q kombu==5.7.0 amqp==5.4.2
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=elsewhere.example \
    -addext subjectAltName=DNS:elsewhere.example -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
cd "$work"
SSL_CERT_FILE=$work/cert.pem "$work/venv/bin/python" - <<'PYTHON'
import contextlib
import socket
import ssl
import threading

from kombu import Connection

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server = socket.create_server(("127.0.0.1", 0))


def serve() -> None:
    while True:
        plain, _ = server.accept()
        with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as tls:
            seen.append(tls.recv(8))


seen: list[bytes] = []
threading.Thread(target=serve, daemon=True).start()
url = f"amqps://u:p@127.0.0.1:{server.getsockname()[1]}//"


def accepted(**options: object) -> bool:
    seen.clear()
    with contextlib.suppress(Exception):
        Connection(url, connect_timeout=5, **options).connect()
    return b"AMQP\x00\x00\x09\x01" in seen


usual, named = accepted(), accepted(ssl={"server_hostname": None})
print(f"another host's certificate: accepted by the URL alone: {usual}, with server_hostname: {named}")
if not usual or named:
    raise SystemExit("the name is checked now: this finding is out of date")
PYTHON
