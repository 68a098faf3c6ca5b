"""`atemporal submit --from-file` on a real API and Postgres."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from atemporal import client
from atemporal.cli import job_file, main
from atemporal.job_lines import LINE_LIMIT
from atemporal.store import listing
from tests.answering import Answer, answering
from tests.api import Api, serving

pytestmark = pytest.mark.usefixtures("own_output")

GOOD = {"image": "nginx:1.9"}


@pytest.fixture(scope="module")
def served(database_url: str) -> Iterator[Api]:
    with serving(database_url) as api:
        yield api


@pytest.fixture
def api(served: Api) -> Iterator[Api]:
    yield served
    with served.database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events CASCADE"))


def call(url: str, *words: str, code: int = 0, stdin: bytes | None = None) -> Result:
    runner = CliRunner(env={"ATEMPORAL_API_URL": url})
    done = runner.invoke(main, ["submit", *words], input=stdin, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def submit(api: Api, *words: str, code: int = 0, stdin: bytes | None = None) -> Result:
    return call(str(api.http.base_url), *words, code=code, stdin=stdin)


def written(folder: Path, *lines: Any) -> str:
    path = folder / "jobs.ndjson"
    texts = (one if isinstance(one, str) else json.dumps(one) for one in lines)
    path.write_text("".join(f"{one}\n" for one in texts))
    return str(path)


def total(api: Api) -> int:
    with api.database.begin() as tx:
        return listing.page(tx, limit=1).total


def test_each_line_becomes_a_job_and_the_ids_come_in_their_order(api: Api, tmp_path: Path) -> None:
    path = written(tmp_path, {**GOOD, "env": {"A": "1"}}, "", {**GOOD, "key": "mine"}, GOOD)
    done = submit(api, "--from-file", path)
    ids = done.stdout.split()
    jobs = [api.http.get(f"/jobs/{one}").json() for one in ids]
    assert ids == sorted(ids)
    assert [job["env"] for job in jobs] == [{"A": "1"}, {}, {}]
    assert jobs[1]["key"] == "mine"
    assert "3 accepted" in done.stderr


@pytest.mark.parametrize("words", [[], ["--key", "night"], ["--skip-errors"]])
def test_the_same_command_again_makes_nothing_twice(
    api: Api, tmp_path: Path, words: list[str]
) -> None:
    path = written(tmp_path, GOOD, GOOD, {**GOOD, "key": "mine"})
    first = submit(api, "--from-file", path, *words)
    again = submit(api, "--from-file", path, *words)
    assert again.stdout == first.stdout
    assert "3 duplicate" in again.stderr
    assert ("--key NAME" in again.stderr) == ("--key" not in words)
    assert total(api) == 3


def test_another_key_submits_the_same_file_once_more(api: Api, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, GOOD)
    for name in ("monday", "tuesday"):
        submit(api, "--from-file", path, "--key", name)
    assert total(api) == 4


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_will_do(api: Api, name: str) -> None:
    code = "from atemporal.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "submit", "--from-file", name],
        input=b'{"image": "nginx"}\n{"image": "nginx"}',
        env={**os.environ, "ATEMPORAL_API_URL": str(api.http.base_url)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert len(done.stdout.split()) == 2


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ("{", "line"),
        ('{"image": "a", "image": "b"}', "line"),
        ({"image": "No Image"}, "image"),
        ({"image": "a", "env": {"A": "x" * 130_000}}, "env"),
        ({"image": "a", "env": {"A": "x" * LINE_LIMIT * 2}}, "line"),
        ({"image": "a", "payload": "?"}, "payload"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_line_is_named_with_what_is_wrong(
    api: Api, tmp_path: Path, bad: Any, field: str, skip: bool
) -> None:
    path = written(tmp_path, GOOD, "", bad, GOOD)
    done = submit(api, "--from-file", path, *(["--skip-errors"] if skip else []), code=2)
    assert f"line 3: {field}: " in done.stderr
    assert len(done.stdout.split()) == (2 if skip else 0)
    assert total(api) == (2 if skip else 0)


def test_nothing_is_sent_while_a_line_is_bad(tmp_path: Path) -> None:
    path = written(tmp_path, *[GOOD] * 50, "{")
    with answering() as (url, asked):
        done = call(url, "--from-file", path, code=2)
    assert asked == []
    assert "line 51" in done.stderr


@pytest.mark.parametrize("skip", [False, True])
def test_a_key_that_another_job_has_is_named_and_nothing_else_is_lost(
    api: Api, tmp_path: Path, skip: bool
) -> None:
    api.submitted(key="taken", timeout_s=7)
    path = written(tmp_path, GOOD, {**GOOD, "key": "taken"}, GOOD)
    done = submit(api, "--from-file", path, *(["--skip-errors"] if skip else []), code=2)
    assert "line 2: key: " in done.stderr
    assert total(api) == (3 if skip else 1)


def test_a_large_file_goes_in_several_and_says_how_far_it_came(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_file, "BATCH", 4)
    api.submitted(key="taken", timeout_s=7)
    lines: list[Any] = [{**GOOD, "env": {"N": str(number)}} for number in range(10)]
    lines[1] = ""
    path = written(tmp_path, *lines[:9], {**GOOD, "key": "taken"})
    done = submit(api, "--from-file", path, code=2)
    assert "line 10: key: " in done.stderr
    assert "up to 9" in done.stderr
    assert len(done.stdout.split()) == 8
    name = done.stderr.split("--key ")[1].split()[0]
    # Mended, as the note says: only what was not there is made.
    path = written(tmp_path, *lines)
    submit(api, "--from-file", path, "--key", name)
    assert total(api) == 1 + 9


def test_a_request_has_no_more_bytes_than_the_api_takes(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_file, "BATCH_BYTES", 300)
    sizes: list[int] = []
    send = client.Client.submit_lines

    def watched(self: client.Client, lines: list[bytes], **how: Any) -> Any:
        sizes.append(sum(len(line) + 1 for line in lines))
        return send(self, lines, **how)

    monkeypatch.setattr(client.Client, "submit_lines", watched)
    submit(api, "--from-file", written(tmp_path, *[GOOD] * 20))
    assert max(sizes) <= 300
    assert len(sizes) >= 5
    assert total(api) == 20


def test_a_lost_answer_says_that_it_may_be_repeated(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    with answering(Answer(0)) as (url, _):
        done = call(url, "--from-file", path, code=3)
    assert "a submit with a key" in done.stderr


def test_results_for_a_program_are_a_line_each(api: Api, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, "{", {**GOOD, "key": "k"}, {**GOOD, "key": "k"})
    done = submit(api, "--from-file", path, "--skip-errors", "-o", "json", code=2)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["line"], one["status"]) for one in results] == [
        (1, "accepted"),
        (2, "rejected"),
        (3, "accepted"),
        (4, "duplicate"),
    ]
    assert results[1]["errors"].keys() == {"line"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--from-file", "FILE", "nginx"], "image"),
        (["--from-file", "FILE", "--in", "0s"], "delay_s"),
        (["--from-file", "FILE", "-e", "A=1"], "env"),
        (["nginx", "--skip-errors"], "--from-file"),
        ([], "IMAGE"),
        (["--from-file", "/nowhere/at.all"], "/nowhere/at.all"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, words: list[str], why: str) -> None:
    path = written(tmp_path, GOOD)
    done = call("http://127.0.0.1:1", *[path if one == "FILE" else one for one in words], code=2)
    assert why in done.stderr


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_a_job_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty"
    path.write_text(content)
    done = call("http://127.0.0.1:1", "--from-file", str(path), code=2)
    assert "holds no line" in done.stderr
