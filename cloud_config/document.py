"""The text around a job manifest: YAML for eyes, and a template that is written once.

Promise: a renderer's user-data is what its document would be with that manifest, byte for byte.
"""

from __future__ import annotations

import base64
from typing import Any

import yaml

from cloud_config.gzip_member import deflated
from cloud_config.os_family import Document, Render

_MARK = "THE-MANIFEST"


def compressed(text: str) -> str:
    """The base64 of the text's gzip: the same in all processes of a release."""
    return base64.b64encode(deflated(text.encode())).decode()


def cloud_config(config: dict[str, Any]) -> str:
    """A `#cloud-config`."""
    return f"#cloud-config\n{yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=2**31)}"


def renderer(document: Document) -> Render:
    """Write the document once; doing it for each job took nine tenths of an intake's time."""
    halves = {
        gzipped: [half.encode() for half in document(_MARK, gzipped).split(_MARK)]
        for gzipped in (False, True)
    }

    def render(manifest: bytes, *, gzipped: bool = False) -> bytes:
        before, after = halves[gzipped]
        return b"%b%b%b" % (before, base64.b64encode(manifest), after)

    return render


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is (`|`), for the eyes of whoever debugs a machine."""

    def expect_scalar(self) -> None:
        """One space before each line: two are a quarter kilobyte less for a job's environment."""
        usual, self.best_indent = self.best_indent, 1
        super().expect_scalar()
        self.best_indent = usual


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
