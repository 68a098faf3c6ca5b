"""Image references: which names a job may run, and their one normal form.

Promise: what `normalise` returns is a complete reference in the grammar of the OCI distribution
project (`registry/path:tag@digest`), safe to hand to a container engine as one argument (it can not
begin with `-` and holds no white space). Two spellings of one image have one normal form.
Sources: github.com/distribution/reference, reference.go (the grammar; the limit is on the path alone);
github.com/opencontainers/go-digest, sha.go (the algorithms that docker knows, in lower case only);
github.com/moby/moby, reference/store.go (no image may be called `sha256`). A docker of before 25 knows
fewer: it counts the registry into the limit, and takes neither IPv6 nor a host told by upper case alone.
"""

from __future__ import annotations

import re

from atemporal.pattern import whole

_ALNUM = r"[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:[._]|__|-+){_ALNUM})*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
# The grammar also takes brackets without a colon. No address is written so: docker refuses `[0]/a`, and
# what it takes, `[A]/a` or `[0]:5000/a`, is no host that it could reach.
_IPV6 = r"\[[a-fA-F0-9]*:[a-fA-F0-9:]*\]"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|{_IPV6})(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_PATH_LIMIT = 255
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_DEFAULT_REGISTRY = "docker.io"

_DIGESTS = "|".join(f"{name}:[a-f0-9]{{{digits}}}" for name, digits in _DIGEST_LENGTHS.items())
PATTERN = whole(rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::{_TAG})?(?:@(?:{_DIGESTS}))?")
"""What `normalise` takes, but for the ids below, for schemas; the limit on the path is beyond both."""
ID_PATTERN = whole(
    rf"{_IDENTIFIER.pattern}|(?:(?:index\.)?docker\.io/)?(?:library/)?sha256(?:[:@].*)?"
)
"""An image's id, which has the form of a reference and is none."""


def normalise(text: str) -> str:
    """Return the full reference, for example `nginx` -> `docker.io/library/nginx:latest`.

    Raises:
        ValueError: the text is not an image reference; the message says what is allowed.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or _IDENTIFIER.fullmatch(text):
        raise ValueError(
            f"{text!r} is not an image reference; write [registry/]name[:tag][@digest], "
            "in lower case, for example nginx:1.9 or ghcr.io/acme/report@sha256:..."
        )
    registry, path = _split(match["name"])
    if (registry, path) == (_DEFAULT_REGISTRY, "library/sha256"):
        raise ValueError(
            f"the image {text!r} is an id, which no registry knows; write a name, like nginx:1.9, or "
            "name@sha256:..."
        )
    if len(path) > _PATH_LIMIT:
        raise ValueError(f"the image's path is longer than {_PATH_LIMIT} characters")
    tag, digest = match["tag"], match["digest"]
    if digest is not None:
        _check_digest(digest)
    if tag is None and digest is None:
        tag = "latest"
    return f"{registry}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def familiar(reference: str) -> str:
    """Return the short form a person would type: `docker.io/library/nginx:1.9` -> `nginx:1.9`."""
    path = reference.removeprefix(f"{_DEFAULT_REGISTRY}/")
    # Not every reference can be shortened: `docker.io/quay.io/x` without its registry is another.
    shorter = (path.removeprefix("library/"), path)
    return next((short for short in shorter if _means(short, reference)), reference)


def _means(text: str, reference: str) -> bool:
    """Whether the text would be read as the reference; an older release took more than this one."""
    try:
        return normalise(text) == reference
    except ValueError:
        return False


def _check_digest(digest: str) -> None:
    """Refuse a digest that fits the grammar and that docker would refuse on the machine all the same."""
    algorithm, _, encoded = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        known = ", ".join(_DIGEST_LENGTHS)
        raise ValueError(f"the image's digest is of {algorithm!r}; docker knows {known}")
    if len(encoded) != length:
        raise ValueError(f"the image's digest has {len(encoded)} digits; {algorithm} has {length}")
    if encoded != encoded.lower():
        raise ValueError("the image's digest has upper-case digits; write them in lower case")


def repository(reference: str) -> str:
    """The registry and path of a reference in its normal form, without tag and digest."""
    name, _, _ = reference.partition("@")
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


def _split(name: str) -> tuple[str, str]:
    """Tell the registry from the path: the first part is one if it could be a host's name."""
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    registry, path = (first, rest) if is_host else (_DEFAULT_REGISTRY, name)
    if registry == "index.docker.io":
        registry = _DEFAULT_REGISTRY
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    return registry, path
