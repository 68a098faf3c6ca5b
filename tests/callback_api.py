"""What a machine talks to, in small: the callbacks of one attempt and EC2's metadata service.

Promise: every request is kept in order; the responses are the test's to choose, and it can look at the
world while the machine waits for one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INSTANCE_ID, REGION = "i-0123456789abcdef0", "eu-central-1"
_PASS = "metadata-session"
CREDENTIALS = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAEXAMPLE",
    "SecretAccessKey": "secret/with+signs",
    "Token": "session/with+signs==",
}
"""The credentials of a machine's role, as the metadata service writes them."""


@dataclass(frozen=True)
class Call:
    """One request of the machine's agent."""

    method: str
    path: str
    token: str
    body: dict[str, Any]


@dataclass
class CallbackApi:
    """A listening API. `statuses` gives those for each method one after the other, the last one for
    ever; `before_response` is called with each request before its response. `metadata_status` is what
    the metadata service says to a method whatever is asked; 0 is no answer until `closed`."""

    url: str
    statuses: dict[str, list[int]] = field(default_factory=dict)
    before_response: Callable[[Call], None] | None = None
    has_metadata: bool = True
    metadata_status: dict[str, int] = field(default_factory=dict)
    takes_spot_back: bool = False
    boot_status: int = 200
    # What is said of the start, one after the other, the last one for ever: milliseconds to the next
    # question and to the start.
    holds: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    # How far its clock is ahead of this machine's.
    ahead_ms: int = 0
    # The start by the first answer to each method, by this machine's clock.
    answered_ms: dict[str, int] = field(default_factory=dict)
    # What a machine that asks for its job is answered: statuses one after the other, and its manifest.
    group_statuses: list[int] = field(default_factory=lambda: [200])
    group_manifest: bytes = b""
    group_calls: list[Call] = field(default_factory=list)
    # The lines of the signed identity document; None where EC2 gives none.
    identity: str | None = None
    # The role of the instance, and what ECR says to who asks in its name: a status, and a token or the
    # kind of the error.
    role: str | None = None
    ecr: list[tuple[int, str]] = field(default_factory=list)
    ecr_calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    # The same of the services that have secrets: a status, and the body as it is.
    aws: list[tuple[int, str]] = field(default_factory=list)
    aws_calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    boot_calls: list[Call] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    when_started: Callable[[], object] = lambda: None
    # What sends the log, and who has asked for it.
    log_script: str | None = None
    script_tokens: list[str] = field(default_factory=list)
    # What it sent, each with its position; unless it `takes_logs` it answers nothing until `closed`.
    log_chunks: list[tuple[int, bytes]] = field(default_factory=list)
    takes_logs: bool = True
    started: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def methods(self) -> list[str]:
        """The methods of all calls so far, in order, but for the boot callbacks."""
        return [call.method for call in self.calls]

    def body(self, method: str) -> dict[str, Any]:
        """The body of the last call with this method."""
        return next(call.body for call in reversed(self.calls) if call.method == method)

    def hold(self, method: str) -> bytes:
        """The next answer about the start."""
        hold_ms, start_in_ms = self.holds.pop(0) if len(self.holds) > 1 else self.holds[0]
        now_ms = int(time.time() * 1000) + self.ahead_ms
        answer = {"hold_ms": hold_ms, "start_in_ms": start_in_ms}
        answer |= {"time_ms": now_ms + start_in_ms, "now_ms": now_ms}
        self.answered_ms.setdefault(method, now_ms - self.ahead_ms + start_in_ms)
        return json.dumps(answer, separators=(",", ":")).encode()

    def take(self, call: Call) -> int:
        """Keep the call and return the status of the response."""
        self.calls.append(call)
        if self.before_response:
            self.before_response(call)
        usual = 204 if call.method == "DELETE" else 200
        statuses = self.statuses.setdefault(call.method, [usual])
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]


@contextmanager
def serve() -> Iterator[CallbackApi]:
    """Serve on a free port of the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.api = CallbackApi(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.api  # type: ignore[attr-defined]
    finally:
        server.api.closed.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing: the calls are kept."""

    def _callback(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        api: CallbackApi = self.server.api  # type: ignore[attr-defined]
        status = api.take(Call(self.command, self.path, token, json.loads(body)))
        self._respond(status, api.hold(self.command) if status == 200 else b"")

    do_PATCH = do_DELETE = _callback

    def do_POST(self) -> None:
        """Take a boot callback, or the question of a machine for its job."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        api: CallbackApi = self.server.api  # type: ignore[attr-defined]
        if self.path == "/ecr/":
            api.ecr_calls.append((dict(self.headers), body))
            status, text = api.ecr.pop(0) if len(api.ecr) > 1 else api.ecr[0]
            answer: dict[str, Any] = {"__type": text}
            if status == 200:
                answer = {"authorizationData": [{"authorizationToken": text, "expiresAt": 1.0}]}
            self._respond(status, json.dumps(answer, separators=(",", ":")).encode())
            return
        if self.path == "/aws/":
            api.aws_calls.append((dict(self.headers), body))
            status, text = api.aws.pop(0) if len(api.aws) > 1 else api.aws[0]
            self._respond(status, text.encode())
            return
        if self.path.endswith(("/machines", "/machine")):
            api.group_calls.append(Call(self.command, self.path, token, json.loads(body)))
            statuses = api.group_statuses
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            self._respond(status, api.group_manifest if status == 200 else b"")
            return
        _, _, start = self.path.partition("/log?start=")
        if start:
            api.log_chunks.append((int(start), body))
            if not api.takes_logs:
                api.closed.wait()
            self._respond(204)
            return
        api.boot_calls.append(Call(self.command, self.path, token, json.loads(body)))
        if "started_at" in api.boot_calls[-1].body:
            api.started.set()
            api.when_started()
        self._respond(api.boot_status, api.hold(self.command) if api.boot_status == 200 else b"")

    def do_PUT(self) -> None:
        """Give a session of the metadata service (IMDSv2), or take a callback of one that is ready."""
        if self.path.startswith("/jobs/"):
            self._callback()
            return
        if self._metadata_refuses():
            return
        self._metadata("/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", _PASS)

    def do_GET(self) -> None:
        """Give the instance's id, or its identity document, to who shows a session."""
        if self.path.endswith("/callback"):
            self._log_script()
            return
        if self._metadata_refuses():
            return
        header = "X-aws-ec2-metadata-token"
        allowed = self.headers.get(header) == _PASS
        api: CallbackApi = self.server.api  # type: ignore[attr-defined]
        if self.path.endswith("/spot/instance-action"):
            self._respond(200 if api.takes_spot_back else 404, b"{}")
            return
        roles, _, name = self.path.partition("/security-credentials/")
        if roles == "/latest/meta-data/iam":
            secrets = json.dumps(CREDENTIALS, indent=2)
            self._metadata(self.path, header, (secrets if name == api.role else api.role) or "")
            return
        if self.path.endswith("/instance-identity/rsa2048"):
            document = api.identity if allowed and api.identity else ""
            self._metadata("/latest/dynamic/instance-identity/rsa2048", header, document)
            return
        known = {
            "/latest/meta-data/instance-id": INSTANCE_ID,
            "/latest/meta-data/placement/region": REGION,
            "/latest/meta-data/services/domain": "amazonaws.com",
        }
        self._metadata(self.path, header, known.get(self.path, "") if allowed else "")

    def _log_script(self) -> None:
        api: CallbackApi = self.server.api  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        api.script_tokens.append(token)
        script = api.log_script
        self._respond(404 if script is None else 200, (script or "").encode())

    def _metadata_refuses(self) -> bool:
        api: CallbackApi = self.server.api  # type: ignore[attr-defined]
        status = api.metadata_status.get(self.command)
        if status == 0:
            api.closed.wait()
        elif status:
            self._respond(status)
        return status is not None

    def _metadata(self, path: str, header: str, text: str) -> None:
        api: CallbackApi = self.server.api  # type: ignore[attr-defined]
        if api.has_metadata and self.path == path and header in self.headers and text:
            self._respond(200, text.encode())
        else:
            self._respond(404)

    def _respond(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
