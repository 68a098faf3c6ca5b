"""Where a webhook may be sent to: which URLs, and which addresses a host name may stand for.

Promise: pure. A receiver is on the public internet over HTTPS, unless the operator's settings name its
network, or allow HTTP. An address that stands for another one by a prefix that everybody knows (IPv4 in
IPv6, translated or tunnelled) is judged by that one. What a network translates by a prefix of its own,
that network has to keep from private addresses.
Sources: the IANA registries of special-purpose addresses, as `ipaddress` knows them; RFC 6052 for
64:ff9b::/96 (NAT64). The clouds' metadata services are at link-local addresses (169.254.169.254) and at
fd00:ec2::254, which is no public one either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

LONGEST_URL = 2000
_NAT64 = ip_network("64:ff9b::/96")
# Not public either, by the registries of 2026; what Python knows depends on its age.
_ALSO_NOT = tuple(
    map(ip_network, ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16", "fec0::/10"))
)
_LAST_32_BITS = (1 << 32) - 1


def networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Read networks such as 10.0.0.0/8 and addresses.

    Raises:
        ValueError: one is none.
    """
    try:
        return tuple(ip_network(name) for name in names)
    except ValueError as error:
        raise ValueError(f"{error}; write networks like 10.20.0.0/16, comma separated") from None


def split(url: str, *, http: bool) -> SplitResult:
    """Read a receiver's URL; `http` says whether one without TLS will do.

    Raises:
        ValueError: no webhook may have this URL; the message says why, and repeats nothing of it.
    """
    if len(url) > LONGEST_URL or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(
            f"write up to {LONGEST_URL} characters of ASCII without spaces, a host name in another "
            "script as xn--..."
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise ValueError("write a URL like https://example.com/hooks/atemporal")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or a password: a receiver knows us by the signature")
    if parts.fragment:
        raise ValueError("has a part behind #, which is never sent")
    if parts.scheme == "http" and not http:
        raise ValueError("is without TLS: write https://, or set ATEMPORAL_WEBHOOK_HTTP")
    return parts


def why_refused(address: str, allowed: Sequence[Network]) -> str | None:
    """Why nothing may be sent to this address, a literal; None if it may."""
    given = ip_address(address.partition("%")[0])
    one = _meant(given)
    if any(each in network for network in allowed for each in (given, one)):
        return None
    for kind in ("loopback", "link_local", "multicast", "unspecified", "reserved", "private"):
        if getattr(one, f"is_{kind}"):
            return f"{address} is {_KINDS.get(kind, kind)}, {_ALLOW}"
    public = one.is_global and not any(one in network for network in _ALSO_NOT)
    return None if public else f"{address} is not on the public internet, {_ALLOW}"


def why_literal_refused(host: str, allowed: Sequence[Network]) -> str | None:
    """The same of a URL's host, if that is an address and no name."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return why_refused(host, allowed)


_ALLOW = "and no network of ATEMPORAL_WEBHOOK_NETWORKS has it"
_KINDS = {
    "loopback": "this machine itself",
    "link_local": "link-local, as the metadata service is",
    "private": "a private address",
}


def _meant(address: Address) -> Address:
    """The address that this one stands for."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is None and (address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1)):
        inner = IPv4Address(int(address) & _LAST_32_BITS)
    return inner or address
