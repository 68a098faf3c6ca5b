"""Completion in the shells themselves: bash, zsh and fish, with the ids of a real API."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api import Api
from tests.integration.command_line import Cli
from tests.terminal import PROGRAM, on_terminal

pytestmark = pytest.mark.usefixtures("own_output")

_BASH = """
eval "$(atemporal completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_atemporal_completion atemporal
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def env(cli: Cli, tmp_path: Path) -> dict[str, str]:
    """A shell's environment, with the command in it."""
    program = tmp_path / "bin" / "atemporal"
    program.parent.mkdir()
    python = shlex.quote(sys.executable)
    program.write_text(f'#!/bin/sh\nexec {python} -c {shlex.quote(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    # Where fish and zsh keep what they write down.
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return {**os.environ, **cli.env, **home, "PATH": path, "TERM": "xterm"}


def bash(line: str, env: dict[str, str]) -> str:
    """What bash would offer behind a line."""
    words = line.split(" ")
    script = _BASH.format(words=" ".join(shlex.quote(word) for word in words))
    return _run(["bash", "--norc", "-c", script], env)


def fish(line: str, env: dict[str, str]) -> str:
    """What fish would offer behind a line."""
    script = f"atemporal completion fish | source; complete -C {shlex.quote(line)}"
    return _run(["fish", "--no-config", "-c", script], env)


def _run(argv: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("complete", [bash, fish])
def test_commands_ids_columns_and_states_are_completed(
    api: Api, env: dict[str, str], complete: Callable[[str, dict[str, str]], str]
) -> None:
    job = str(api.submitted(delay_s=3600))
    assert {one.split("\t")[0] for one in complete("atemporal sh", env).split("\n")} == {
        "show",
        "",
    }
    assert job in complete(f"atemporal show {job[:9]}", env)
    assert "id,started" in complete("atemporal list --columns id,st", env)
    assert complete("atemporal list --state ti", env).split() == ["timed_out"]
    assert "create" in complete("atemporal schedule cr", env)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["list", "--state", "=", "fai"], ["failed"]),
        (["list", "--columns", "=", "id,st"], ["id,state", "id,started"]),
        (["list", "--state", "=", "failed", "--columns", "pri"], ["priority"]),
        (["list", "--output", "="], ["text", "json"]),
        (["list", "--label", "team", "=", "a", "--st"], ["--state"]),
    ],
)
def test_bash_splits_words_at_the_equals_sign(
    env: dict[str, str], words: list[str], offered: list[str]
) -> None:
    assert bash(" ".join(["atemporal", *words]), env).split() == offered


def test_fish_shows_helps_with_commas_whole(api: Api, env: dict[str, str]) -> None:
    assert "its attempts, its history" in fish("atemporal sh", env)


def test_zsh_completes_on_its_line(api: Api, env: dict[str, str]) -> None:
    job = str(api.submitted(image="of-zsh", delay_s=3600))
    with on_terminal(["zsh", "-f", "-i"], env) as shell:
        shell.press(b"PS1='ready''> '; autoload -Uz compinit; compinit -u -D\n")
        shell.press(b'eval "$(atemporal completion zsh)"; echo is-"set"-up\n')
        shell.sees("is-set-up")
        shell.press(b"atemporal list --columns id,finis\t")
        shell.sees("id,finished")
        shell.press(b"\x15atemporal show " + job[:30].encode() + b"\t")
        shell.sees(job)
        shell.press(b"\x15exit\n")


@pytest.mark.parametrize("shell", [bash, fish])
def test_an_api_that_is_away_completes_nothing_and_says_nothing(
    env: dict[str, str], shell: Callable[[str, dict[str, str]], str]
) -> None:
    away = {**env, "ATEMPORAL_API_URL": "http://127.0.0.1:1"}
    assert shell("atemporal show 0198", away).strip() == ""
