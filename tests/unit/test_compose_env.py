"""Env files by compose's rules, against what the real docker compose made of each.

`python -m tests.unit.test_compose_env PATH_OF_DOCKER_COMPOSE` asks a compose again and writes the table.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal import compose_env
from atemporal.cli.arguments import read_environment

TABLE = Path(__file__).with_name("compose_env.json")
ROWS: list[dict[str, Any]] = json.loads(TABLE.read_text())
OWN = {"MINE": "my own", "EMPTY_OWN": "", "HOST": "db.example"}


def parse(text: str) -> dict[str, str] | None:
    """What we read; None if we refuse it."""
    try:
        return compose_env.parse(text, own=OWN.get, before={})
    except ValueError:
        return None


def file(text: str | bytes, name: str = "job.env") -> BinaryIO:
    """An open file."""
    stream = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    stream.name = name
    return stream


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row["text"]))
def test_an_env_file_means_what_it_means_to_compose(row: dict[str, Any]) -> None:
    if "ours_because" in row:
        assert parse(row["text"]) != row["compose"], "there is no difference any more"
    else:
        assert parse(row["text"]) == row["compose"]


def test_the_table_has_both_kinds_and_names_each_difference() -> None:
    assert len(ROWS) > 200
    assert sum(row["compose"] is None for row in ROWS) > 20
    assert sum("ours_because" in row for row in ROWS) == 15


def test_where_we_differ_we_refuse_or_take_the_name() -> None:
    ours = {row["text"]: parse(row["text"]) for row in ROWS if "ours_because" in row}
    assert ours.pop("MINE") == {"MINE": "my own"}
    assert ours.pop("NO") == {}
    assert set(ours.values()) == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\n\n# c\nB='x\n\n", "line 4: the quote before the value of B is not closed"),
        ("A='1\n2'\nB=${SECRET/x/y}", "line 3: \\${SECRET is not closed, or goes on with"),
        ("A=${}", "line 1: behind \\${ stands no name"),
        ("A=1\nB=${DSN:?hush}", "line 2: DSN has to be set, and is not"),
        ("A='x' hush", "line 1: there is more than a comment behind the value of A"),
        ("KEY=x\n" + "hush" * 12 + "+/x\n", "line 2: what stands here is not a variable name"),
        ("A=" + "${X:-" * 3000, "line 1: its \\${ are nested too deeply"),
    ],
)
def test_what_is_refused_is_named_by_its_line_and_never_by_its_value(
    text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        compose_env.parse(text, own=OWN.get, before={})
    assert "hush" not in str(refusal.value)


def test_a_later_file_sees_the_earlier_ones_and_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "my own")
    files = [file("B=1\nC=x\nMINE=no\n"), file("B=2\nA=$B$MINE\n"), file("C=$A\n")]
    assert read_environment(files, ["B=word"], "compose") == {
        "A": "2my own",
        "B": "word",
        "C": "2my own",
        "MINE": "no",
    }


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    read = parse(text)
    assert read is None or all(name.isascii() for name in read)


@given(st.dictionaries(st.sampled_from("ABC"), st.text(st.characters(exclude_characters="\0"))))
def test_single_quotes_keep_any_value(env: dict[str, str]) -> None:
    # A value that ends with a backslash can not be written so: compose takes the quote as escaped.
    env = {name: value.rstrip("\\").replace("\\'", "'") for name, value in env.items()}
    quoted = {name: value.replace("'", "\\'") for name, value in env.items()}
    assert parse("".join(f"{name}='{value}'\n" for name, value in quoted.items())) == env


COMPOSE_LIKE = (
    ("LEVEL='info'", 1),
    ('  LEVEL = "two words" # why\r', 1),
    ("LEVEL=info # not debug", 1),
    ("URL=http://${HOST:-db}/", 1),
    ("export LEVEL=info", 1),
    ("\texport\tLEVEL=info", 1),
    ("LEVEL=info", 0),
    ("exporter=x\nexport_to=y", 0),
    ("COLOUR=#fff\nANCHOR=a#b", 0),
    ("# LEVEL='info' # ${X}\n\n", 0),
    ('CONFIG={"a": "b"}\nQUOTE="\nPASSWORD=pa$$word$x', 0),
)


@pytest.mark.parametrize(("text", "count"), COMPOSE_LIKE)
def test_a_file_that_looks_like_composes_is_known_by_its_lines(text: str, count: int) -> None:
    assert len(list(compose_env.suspects(text))) == count


def test_a_file_for_compose_that_is_read_as_docker_reads_it_is_noted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "A=1\nB='hush'\nC=hush # hush\n\nD=${HUSH}\n"
    env = read_environment([file(text), file("E=1\n", "other.env")], [])
    assert env == {"A": "1", "B": "'hush'", "C": "hush # hush", "D": "${HUSH}", "E": "1"}
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (
        "job.env looks as if written for compose: line 2 (B), line 3 (C), line 5 (D)."
        in printed.err
    )
    assert "add --env-file-format compose" in printed.err
    assert "hush" not in printed.err.lower().replace("${...}", "")
    assert "other.env" not in printed.err


def test_of_many_lines_the_first_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    read_environment([file("".join(f"A{n}='x'\n" for n in range(9)))], [])
    assert "line 5 (A4) and 4 more." in capsys.readouterr().err


@pytest.mark.parametrize("text", ["export A=1\n", "B=2\nexport\tA='x'\n"])
def test_what_docker_refuses_of_a_file_for_compose_is_noted_too(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(click.BadParameter, match="remove export"):
        read_environment([file(text)], [])
    assert "--env-file-format compose" in capsys.readouterr().err
    assert read_environment([file(text)], [], "compose")["A"] in ("1", "x")
    assert capsys.readouterr().err == ""


def ask(compose: str, text: str) -> dict[str, str] | None:
    """What a docker compose makes of an env file of a service; None if it refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.env").write_bytes(text.encode())
        model = {"services": {"job": {"image": "x", "env_file": ["job.env"]}}}
        (Path(folder) / "compose.yaml").write_text(json.dumps(model))
        done = subprocess.run(
            [compose, "--project-name", "x", "config", "--format", "json"],
            capture_output=True,
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, **OWN},
            check=False,
        )
    if done.returncode:
        return None
    # What it prints is a model again, in which a dollar sign is written twice.
    env = json.loads(done.stdout)["services"]["job"].get("environment", {})
    return {name: value.replace("$$", "$") for name, value in env.items()}


if __name__ == "__main__":
    for row in ROWS:
        row["compose"] = ask(sys.argv[1], row["text"])
    TABLE.write_text("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n")
