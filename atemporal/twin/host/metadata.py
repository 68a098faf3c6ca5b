"""The instance metadata service, version 2: what a machine may ask about itself.

Promise: nothing is readable without a token, which is given to a PUT with a time to live, as with
`HttpTokens=required`. Every machine has its own base URL, because all share one address.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Mapping

from atemporal.identity.signer import IdentitySigner
from atemporal.twin.faults.plan import FaultPlan
from atemporal.twin.host.identity import document
from atemporal.twin.state import Instance, State

_TTL = range(1, 21_601)


class Metadata:
    """The metadata services of all machines."""

    def __init__(self, state: State, plan: FaultPlan, signer: IdentitySigner) -> None:
        self._state = state
        self._plan = plan
        self._signer = signer
        self._tokens: dict[str, tuple[str, float]] = {}

    def handle(
        self, method: str, instance_id: str, path: str, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Carry out one request; return an HTTP status and a body. Header names are in lower case."""
        instance = self._state.get(instance_id)
        if instance is None or instance.over:
            return 404, b""
        if path == "/latest/api/token":
            return self._token(method, instance_id, headers)
        if method != "GET":
            return 405, b""
        owner, expires = self._tokens.get(headers.get("x-aws-ec2-metadata-token", ""), ("", 0.0))
        if owner != instance_id or expires < time.monotonic():
            return 401, b""
        if path == "/latest/meta-data/spot/instance-action":
            value = self._plan.notice(instance)
        elif path.startswith("/latest/dynamic/instance-identity/"):
            value = self._identity(instance, path.rpartition("/")[2])
        else:
            value = self._values(instance).get(path)
        return (404, b"") if value is None else (200, value)

    def _token(
        self, method: str, instance_id: str, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if method != "PUT":
            return 405, b""
        ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not re.fullmatch(r"[0-9]{1,5}", ttl) or int(ttl) not in _TTL:
            return 400, b""
        now = time.monotonic()
        self._tokens = {t: held for t, held in self._tokens.items() if held[1] > now}
        token = secrets.token_urlsafe(42)
        self._tokens[token] = (instance_id, now + int(ttl))
        return 200, token.encode()

    def _identity(self, instance: Instance, name: str) -> bytes | None:
        stated = document(instance, instance_id=self._plan.false_identity(instance))
        match name:
            case "document":
                return stated
            case "rsa2048":
                return self._signer.sign(stated)
            case _:
                return None

    def _values(self, instance: Instance) -> dict[str, bytes | None]:
        requested = instance.parameters
        values = {
            "instance-id": instance.id,
            "ami-id": requested["ImageId"],
            "instance-type": requested["InstanceType"],
            "local-ipv4": instance.private_ip,
            "public-ipv4": instance.public_ip,
            "public-hostname": instance.public_dns,
            "placement/availability-zone": instance.zone,
            "placement/region": instance.zone[:-1],
            "services/domain": "amazonaws.com",
        }
        found = {
            f"/latest/meta-data/{name}": value.encode() if value else None
            for name, value in values.items()
        }
        user_data = base64.b64decode(self._state.reservation(instance).user_data)
        return {**found, "/latest/user-data": user_data or None}
