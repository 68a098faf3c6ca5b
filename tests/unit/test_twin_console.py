"""The console of the twin's machines: what is written is kept, and after its end nothing is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atemporal.twin.machine.console import Console


@pytest.fixture
def log(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "console.log"


def test_what_was_written_before_the_end_is_kept(log: Path) -> None:
    console = Console(log.with_name("fifo"), log)
    console.write("one\n")
    console.write("two\n")
    console.close()
    assert log.read_text() == "one\ntwo\n"


def test_what_comes_after_the_end_gets_into_no_other_file(log: Path, tmp_path: Path) -> None:
    console = Console(log.with_name("fifo"), log)
    console.close()
    # Files that are opened now get the numbers of those that were closed.
    others = [(tmp_path / f"other{number}").open("wb") for number in range(8)]
    console.write("late\n")
    for other in others:
        other.close()
    assert {Path(other.name).read_bytes() for other in others} == {b""}
    assert log.read_text() == ""
