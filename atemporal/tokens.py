"""Callback tokens: how a machine proves that it speaks for one attempt, or what it was launched for.

Promise: a token is `kid.HMAC-SHA256(key[kid], purpose|deployment|attempt)`: made again byte for byte
from the same attempt (a repeated launch must send identical user-data), good for one attempt only,
and compared in constant time. A launch group's has another purpose, and so has that by which a lone
attempt's machine asks for its job: none is good for another. Two keys can live at once, so a key can be
replaced without breaking machines that run: first add the new one at the end, everywhere; then move it
to the front; drop the old one when its machines are gone.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

_INSTANCE = "instance"
Purpose = Literal["callback", "group", "assignment"]


def mint(
    keys: Mapping[str, bytes],
    kid: str,
    deployment: str,
    holder: str,
    purpose: Purpose = "callback",
) -> str:
    """Return the token of an attempt or a group for this purpose, under the key named `kid`.

    Raises:
        KeyError: there is no such key.
    """
    subject = f"{purpose}|{deployment}|{holder}".encode()
    return f"{kid}.{hmac.new(keys[kid], subject, hashlib.sha256).hexdigest()}"


def verify(
    keys: Mapping[str, bytes],
    token: str,
    deployment: str,
    holder: str,
    purpose: Purpose = "callback",
) -> bool:
    """Tell whether the token is this attempt's or group's, for this purpose, under any live key."""
    kid, dot, _ = token.partition(".")
    if not dot or kid not in keys:
        return False
    expected = mint(keys, kid, deployment, holder, purpose)
    return hmac.compare_digest(expected.encode(), token.encode())


def prove_instance(
    keys: Mapping[str, bytes], kid: str, deployment: str, attempt_id: str, instance_id: str
) -> str:
    """Return what whoever heard of an attempt's instance from EC2 writes beside its id.

    A row that was changed by hand, or a copy of the database under another deployment, does not have it.

    Raises:
        KeyError: there is no such key.
    """
    subject = f"{_INSTANCE}|{deployment}|{attempt_id}|{instance_id}".encode()
    return f"{kid}.{hmac.new(keys[kid], subject, hashlib.sha256).hexdigest()}"


def instance_is_proven(
    keys: Mapping[str, bytes], proof: str, deployment: str, attempt_id: str, instance_id: str
) -> bool:
    """Tell whether EC2 named this instance to one of this deployment's daemons, as this attempt's."""
    kid, dot, _ = proof.partition(".")
    if not dot or kid not in keys:
        return False
    expected = prove_instance(keys, kid, deployment, attempt_id, instance_id)
    return hmac.compare_digest(expected.encode(), proof.encode())


def hash_secret(secret: str) -> str:
    """Return what is stored of an API token: a random 256-bit secret needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
