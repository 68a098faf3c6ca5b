"""`atemporal submit --from-file`: many jobs, a JSON object on each line.

Promise: the whole file is checked before anything is sent. Up to `BATCH` jobs are one transaction: all
of them are made, or none. A larger file goes in several, in its order; what can still fail there (a key
that another job has, a server that goes away) says which lines are submitted. With `--skip-errors` the
good lines are submitted and each bad one is named. Memory does not grow with the file.
Mechanism: a line without a key gets NAME/NUMBER, where NAME is `--key` or follows from the file's bytes:
the same command again makes nothing twice, as long as its jobs are kept. A job that has finished is kept
for `ATEMPORAL_RETENTION` days: then its key is free, and its line makes a new job. The file is read more
than once; a pipe is copied to disk first.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from tempfile import TemporaryFile
from typing import IO, Any

import click

from atemporal.cli import output
from atemporal.cli.output import note
from atemporal.cli.session import Session
from atemporal.client import BATCH, BATCH_BYTES, LineResult
from atemporal.errors import NAMED_LINES, AtemporalError, Invalid, InvalidLines
from atemporal.job_lines import LINE_LIMIT, read_line
from atemporal.json_object import read_object

OPTIONS = (
    click.Option(
        ["--from-file", "from_file"],
        type=click.File("rb", lazy=False),
        metavar="FILE",
        help="Submit many jobs, one JSON object on each line; - is standard input.",
    ),
    click.Option(
        ["--skip-errors", "skip_errors"],
        is_flag=True,
        help="Of a file: submit the good lines, and name the bad ones.",
    ),
)
_OURS = frozenset({"from_file", "skip_errors", "key"})
_BAD_INPUT = 2
# A key of a whole file, from so many hexadecimal digits of its hash.
_DIGITS = 24

Progress = Callable[[int], None]


def submit(session: Session, given: Mapping[str, Any]) -> None:
    """Submit the jobs of a file.

    Raises:
        InvalidLines: lines are bad, or have the key of another job.
    """
    for name, value in given.items():
        if name not in _OURS and value is not None and value != ():
            raise click.UsageError(
                f"--from-file takes all from the file: leave out what gives {name!r}"
            )
    skip = given["skip_errors"]
    with _seekable(given["from_file"]) as file:
        name = given["key"] or f"file-{_digest(file)}"
        if not skip:
            with _progress("checking", file) as advance:
                _check(file, name, advance)
        counts = _send(session, file, name, skip_errors=skip)
    if not counts:
        raise Invalid({"--from-file": "holds no line: write a JSON object, a job, on each"})
    note(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    if set(counts) == {"duplicate"} and not given["key"]:
        note("this file was submitted before: --key NAME submits it once more")
    session.repeat_notice()
    if counts["rejected"]:
        click.get_current_context().exit(_BAD_INPUT)


@contextmanager
def _seekable(given: IO[bytes]) -> Iterator[IO[bytes]]:
    if given.seekable():
        yield given
        return
    with TemporaryFile() as copy:
        shutil.copyfileobj(given, copy)
        copy.seek(0)
        yield copy


def _digest(file: IO[bytes]) -> str:
    digest = sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()[:_DIGITS]


def _lines(file: IO[bytes], advance: Progress) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1 on; of one too long only so much."""
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        advance(len(line))
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(LINE_LIMIT)):
            advance(len(rest))
        if stripped := line.strip():
            yield number, stripped
    file.seek(0)


def _check(file: IO[bytes], name: str, advance: Progress) -> None:
    bad: dict[int, Mapping[str, str]] = {}
    count = 0
    for number, line in _lines(file, advance):
        try:
            read_line(line, key=f"{name}/{number}")
        except Invalid as error:
            count += 1
            if len(bad) < NAMED_LINES:
                bad[number] = error.fields
    if bad:
        raise InvalidLines(bad, count=count)


def _send(session: Session, file: IO[bytes], name: str, *, skip_errors: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    last = 0
    with _progress("submitting", file) as advance:
        for numbers, lines in _batches(file, name, advance):
            try:
                results = session.api.submit_lines(lines, skip_errors=skip_errors)
            except AtemporalError as error:
                if last:
                    note(
                        f"the lines up to {last} are submitted. The same command again makes none of "
                        f"them twice; if you change the file, add --key {name}"
                    )
                raise _numbered(error, numbers) from None
            for result in results:
                _show({**result, "line": numbers[result["line"] - 1]}, as_json=session.as_json)
                counts[result["status"]] += 1
            last = numbers[-1]
    return counts


def _numbered(error: AtemporalError, numbers: Sequence[int]) -> AtemporalError:
    """The error with the file's numbers of the lines, in place of the request's."""
    if not isinstance(error, InvalidLines):
        return error
    lines = {numbers[number - 1]: wrong for number, wrong in error.lines.items()}
    return InvalidLines(lines, count=error.count)


def _batches(
    file: IO[bytes], name: str, advance: Progress
) -> Iterator[tuple[list[int], list[bytes]]]:
    """The lines' numbers and the lines, each with a key, as many as one request may have."""
    numbers: list[int] = []
    lines: list[bytes] = []
    size = 0
    for number, line in _lines(file, advance):
        keyed = _keyed(line, f"{name}/{number}")
        if len(lines) == BATCH or size + len(keyed) + 1 > BATCH_BYTES:
            yield numbers, lines
            numbers, lines, size = [], [], 0
        numbers.append(number)
        lines.append(keyed)
        size += len(keyed) + 1
    if lines:
        yield numbers, lines


def _keyed(line: bytes, key: str) -> bytes:
    """The line with a key, if it has none; a bad one as it is, for the API to say why."""
    try:
        fields = read_object(line)
    except Invalid:
        return line
    if fields.get("key") is not None:
        return line
    return json.dumps({**fields, "key": key}, separators=(",", ":")).encode()


def _show(result: LineResult, *, as_json: bool) -> None:
    if as_json:
        output.show_json(result, one_line=True)
    elif result["status"] == "rejected":
        why = "; ".join(f"{name}: {why}" for name, why in result.get("errors", {}).items())
        note(f"line {result['line']}: {why}")
    else:
        click.echo(result["id"])


@contextmanager
def _progress(label: str, file: IO[bytes]) -> Iterator[Progress]:
    """Show how much of the file has been read, to a person only."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    size = file.seek(0, 2)
    file.seek(0)
    with click.progressbar(length=size, label=label, file=sys.stderr) as bar:
        yield bar.update
