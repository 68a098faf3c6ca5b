"""What a bundle takes of a console."""

from __future__ import annotations

import base64
from typing import cast

import pytest

from atemporal.cli.evidence import console_text
from atemporal.cloud import Cloud
from atemporal.errors import Unavailable

DATA = base64.b64encode(b"what the container wrote, and a secret of its own. " * 20).decode()


class Console:
    def __init__(self, text: str) -> None:
        self._text = text

    def console(self, _instance_id: str) -> str:
        return self._text


def text_of(text: str) -> str:
    return console_text(cast(Cloud, Console(text)), "i-1")


def test_our_lines_stay_and_the_container_s_output_in_them_does_not() -> None:
    shown = text_of(
        f'{DATA[300:]}\nkernel: up\natemporal-exit a.1 {{"exit_code": 1}}\r\n'
        f"atemporal-log a.1 {DATA[:200]}\n"
        f"atemporal-log a.1 {DATA[200:260]}[ 12.3] kernel: said\n{DATA[260:]}\n"
    )
    assert 'kernel: up\natemporal-exit a.1 {"exit_code": 1}' in shown
    assert shown.count("atemporal-log a.1 [") == 2
    assert "kernel: said" in shown
    assert not any(DATA[at : at + 12] in shown for at in range(0, len(DATA) - 12, 12))


def test_no_text_is_no_part() -> None:
    with pytest.raises(Unavailable, match="no console output of i-1"):
        text_of("")
