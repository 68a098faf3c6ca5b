"""Checks of the address that machines call: whether they can reach it at all, and who answers there."""

from __future__ import annotations

import json
from http.client import HTTPException
from ipaddress import ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from atemporal.doctor.check import Check, Result, ok, warning, wrong
from atemporal.doctor.instruments import Instruments, shown
from atemporal.doctor.settings import VALUES

ADDRESS = "callback.address"
_TIMEOUT_S = 10.0
_LONGEST = 65_536
_SET = (
    "set ATEMPORAL_CALLBACK_URL to the API's address as machines see it, and restart the launchers"
)


def address(instruments: Instruments) -> Result:
    """It stands for an address that a machine can have a way to."""
    settings = instruments.settings
    url = urlsplit(settings.callback_url)
    host = url.hostname or ""
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = {str(one[4][0]) for one in getaddrinfo(host, port, type=SOCK_STREAM)}
    except (gaierror, UnicodeError, ValueError) as error:
        return wrong(f"{host!r} of ATEMPORAL_CALLBACK_URL has no address here: {error}", _SET)
    addresses = {ip_address(one.partition("%")[0]) for one in found}
    named = f"{shown(settings.callback_url)} ({', '.join(sorted(map(str, addresses)))})"
    if all(one.is_loopback for one in addresses):
        if _is_local(settings.ec2_endpoint_url):
            return ok(f"{named}: this host, as EC2 is")
        return wrong(f"{named} is this host's loopback: no machine reaches it", _SET)
    if any(one.is_link_local or one.is_unspecified for one in addresses):
        return wrong(f"{named} is no address that a machine has a way to", _SET)
    if any(one.is_private for one in addresses):
        return warning(
            f"{named} is private: only machines in that network reach it",
            "see that ATEMPORAL_SUBNETS have a route to it, and that its security group lets them in",
        )
    if url.scheme == "http":
        return warning(
            f"{named} is public and not encrypted: tokens and environments can be read on the way",
            "put TLS before the API and write https://",
        )
    return ok(named)


def answers(instruments: Instruments) -> Result:
    """The API answers there, as far as this host sees it."""
    url = f"{instruments.settings.callback_url}/"
    try:
        with urlopen(Request(url), timeout=_TIMEOUT_S) as response:
            if response.url != url:
                return _somebody_else(
                    url, f"it sends callers on to {response.url}, and no machine goes"
                )
            content = json.loads(response.read(_LONGEST))
    except HTTPError as error:
        with error:
            return _somebody_else(url, f"it answers {error.code} {error.reason}")
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)
        return wrong(
            f"nobody answers at {shown(url)} from here: {why}",
            "start the API, or see to its DNS name, certificate, port, proxy and firewall; machines "
            "that can not report are ended at their deadline",
        )
    except ValueError:
        return _somebody_else(url, "its answer is no JSON")
    if not isinstance(content, dict) or not str(content.get("message", "")).startswith(
        "atemporal"
    ):
        return _somebody_else(url, "its answer is not the API's")
    return ok(f"the API answers at {shown(url)}")


def _somebody_else(url: str, why: str) -> Result:
    return wrong(
        f"something else than the API is at {shown(url)}: {why}",
        "correct ATEMPORAL_CALLBACK_URL, path included, or the proxy that stands there",
    )


def _is_local(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


CHECKS = (
    Check(ADDRESS, address, (VALUES,)),
    # What is wrong with the address for machines says nothing of who answers.
    Check("callback.answers", answers, (VALUES,)),
)
