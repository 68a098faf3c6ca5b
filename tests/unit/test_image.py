"""Which image names a job may run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal import image


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.9", "docker.io/library/nginx:1.9"),
        ("andrerocker/dummy-exec", "docker.io/andrerocker/dummy-exec:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a:b", "localhost:5000/a:b"),
        ("ghcr.io/acme/re_port:V1", "ghcr.io/acme/re_port:V1"),
        ("a@sha256:" + "0" * 64, "docker.io/library/a@sha256:" + "0" * 64),
        ("a:1@sha256:" + "0" * 64, "docker.io/library/a:1@sha256:" + "0" * 64),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("a@sha384:" + "0a" * 48, "docker.io/library/a@sha384:" + "0a" * 48),
        ("a@sha512:" + "f" * 128, "docker.io/library/a@sha512:" + "f" * 128),
        # Only the path has a limit, so a long registry name leaves room for a long path.
        ("r.example.com/" + "a" * 255, "r.example.com/" + "a" * 255 + ":latest"),
    ],
)
def test_two_spellings_of_an_image_have_one_normal_form(typed: str, normal: str) -> None:
    assert image.normalise(typed) == normal
    assert image.normalise(normal) == normal
    assert image.normalise(image.familiar(normal)) == normal


@pytest.mark.parametrize(
    ("normal", "short"),
    [
        ("docker.io/library/nginx:1.9", "nginx:1.9"),
        ("docker.io/acme/a:1", "acme/a:1"),
        ("docker.io/library/a/b:1", "library/a/b:1"),
        ("docker.io/quay.io/x:1", "docker.io/quay.io/x:1"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
    ],
)
def test_the_short_form_means_the_same_image(normal: str, short: str) -> None:
    assert image.familiar(normal) == short
    assert image.normalise(short) == normal


@pytest.mark.parametrize("stored", ["docker.io/[0]/a:latest", "[A]/a:latest", "[0]:5000/a:latest"])
def test_what_an_older_release_took_is_shown_as_it_stands(stored: str) -> None:
    assert image.familiar(stored) == stored


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "-v",
        "nginx\n",
        "andrerocker; sh -c ' echo RAHHH!'",
        "Nginx",
        "a b",
        "a//b",
        "a:",
        "a@sha256:123",
        # Digests that docker refuses on the machine: algorithm, length, upper case.
        "nginx@md5:" + "0" * 32,
        "nginx@sha1:" + "0" * 40,
        "nginx@sha256+b64:" + "0" * 64,
        "nginx@SHA256:" + "0" * 64,
        "nginx@sha256:" + "0" * 38,
        "nginx@sha256:" + "0" * 63,
        "nginx@sha256:" + "0" * 65,
        "nginx@sha384:" + "0" * 64,
        "nginx@sha512:" + "0" * 127,
        "nginx:1.9@sha256:" + "A" * 64,
        "localhost:5000/a/b@sha512:" + "f" * 127 + "F",
        "a/" * 127 + "ab",
        "r.example.com/" + "a" * 256,
        "é",
        "f" * 64,
        # What `docker images` shows as an id, and what docker lets nobody call an image.
        "sha256:" + "0" * 64,
        "sha256",
        "docker.io/library/sha256:1",
        "a/" * 200 + "a",
        "a:" + "t" * 129,
    ],
)
def test_anything_else_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="image"):
        image.normalise(bad)


@given(st.text(max_size=40))
def test_what_is_accepted_is_safe_as_one_argument(text: str) -> None:
    try:
        normal = image.normalise(text)
    except ValueError:
        return
    assert normal.isascii()
    assert not normal.startswith("-")
    assert not set(normal) & set(" \t\n'\"$`\\;|&<>")
