"""The command line, called as a person or a program calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from click.testing import CliRunner, Result

from atemporal.cli import main

KEYS = "k1:0123456789abcdef0123456789abcdef"


class Cli:
    """Calls `atemporal` with the address of an API, and an operator's settings for its database."""

    def __init__(self, database_url: str, api_url: str) -> None:
        self.env = {
            "ATEMPORAL_API_URL": api_url,
            "ATEMPORAL_DATABASE_URL": database_url,
            "ATEMPORAL_CALLBACK_KEYS": KEYS,
        }

    def __call__(self, *words: str, code: int = 0, **env: str) -> Result:
        done = CliRunner(env={**self.env, **env}).invoke(main, words, catch_exceptions=False)
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    def json(self, *words: str, code: int = 0, **env: str) -> Any:
        return json.loads(self(*words, "-o", "json", code=code, **env).stdout)

    def submit(self, *words: str) -> str:
        return self("submit", "nginx", *words).stdout.strip()

    @contextmanager
    def background(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        code = "from atemporal.cli import main; main(prog_name='atemporal')"
        with subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
