"""The kinds of values that commands take: durations, instants, NAME=VALUE, a job's attempt."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import BinaryIO, TypeVar

import click
from click.shell_completion import CompletionItem

from atemporal import compose_env
from atemporal.cli.output import note
from atemporal.cli.session import Session
from atemporal.cli.usual import REFERENCE_SCHEMES
from atemporal.cli.wording import ending
from atemporal.clock import format_utc, parse_duration, parse_utc
from atemporal.errors import AtemporalError, NotFound
from atemporal.lead import LIMIT_S

T = TypeVar("T")
# An id's end that is shorter says too little about what is meant to be changed by it.
_CHANGING_ID = 4
_COMPLETED = 50
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# More than any variable may have.
_LONGEST_FILE = 1 << 20
# So many lines of a file are named in a note.
_SUSPECTS = 5
LONGEST_S = 365 * 86_400
"""The longest time that a job may be asked to wait or to run, in seconds."""


def duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """An option's callback: seconds, or like 30s, 10m, 1h30m, 2d, as whole seconds."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def duration_from(least_s: int, longest_s: int) -> Callable[..., int | None]:
    """Make an option's callback: a duration within these, in seconds."""

    def read(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
        seconds = duration(context, parameter, text)
        if seconds is not None and not least_s <= seconds <= longest_s:
            raise click.BadParameter(
                f"{text} is not within {duration_text(least_s)} and {duration_text(longest_s)}"
            )
        return seconds

    return read


def duration_text(seconds: int) -> str:
    """Write whole seconds as `duration` reads them, in the largest unit that divides them: 1d, 90s."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def text(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """An option's callback: some text."""
    if text == "":
        raise click.BadParameter("it is empty; give some text, or leave the option out")
    return text


def changing_ids(
    _context: click.Context, _parameter: click.Parameter, given: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    """An argument's callback: ids of jobs that will be changed, so none by a letter or two."""
    for one in (given,) if isinstance(given, str) else given:
        if len(one.strip()) < _CHANGING_ID:
            raise click.BadParameter(
                f"{one!r} is too short to change a job by; give {_CHANGING_ID} characters of its "
                "id or more"
            )
    return given


def known_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete an id with those of the newest jobs; with none when the API does not answer."""
    try:
        newest = context.ensure_object(Session).api.jobs(limit=_COMPLETED, newest_first=True)
    except AtemporalError:
        return []
    return [
        CompletionItem(job["id"], help=f"{ending(job)} {job['image']}")
        for job in newest["jobs"]
        if job["id"].startswith(incomplete)
    ]


def known_schedules(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a name with those of the schedules; with none when the API does not answer."""
    try:
        known = context.ensure_object(Session).api.schedules()
    except AtemporalError:
        return []
    return [
        CompletionItem(one["name"], help=f"{one['cron']} {one['zone']}")
        for one in known["schedules"]
        if one["name"].startswith(incomplete)
    ]


def exit_codes(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """An option's callback: numbers with commas between, like 75,137."""
    try:
        codes = None if text is None else tuple(int(code) for code in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not exit codes; write them like 75,137") from None
    for code in codes or ():
        if not 1 <= code <= 255:
            raise click.BadParameter(f"{code} is no exit code of a failure; those are 1 to 255")
    return codes


def instant(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> datetime | None:
    """An option's callback: an ISO 8601 time, in UTC unless it says another offset."""
    try:
        return None if text is None else parse_utc(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def when(
    _context: click.Context, parameter: click.Parameter, text: str | None
) -> dict[str, str | int]:
    """An option's callback: how long ago, a day (in UTC) or an instant, as the API's parameter for it.

    Of an option `--since` that is `since_s`, whole seconds, or `since`, an instant; absent: nothing.
    """
    if text is None:
        return {}
    try:
        return {f"{parameter.name}_s": max(1, parse_duration(text))}
    except ValueError:
        pass
    try:
        return {
            str(parameter.name): format_utc(
                parse_utc(f"{text}T00:00Z" if _DAY.fullmatch(text) else text)
            )
        }
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a duration like 7d or 12h nor a time like 2026-01-31 or "
            "2026-01-31T12:00Z"
        ) from None


def lead(context: click.Context, parameter: click.Parameter, text: str | None) -> int | str | None:
    """An option's callback: `auto`, or a duration, in seconds."""
    if text == "auto":
        return text
    return duration_from(0, int(LIMIT_S))(context, parameter, text)


def gpus(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> int | str | None:
    """An option's callback: `all`, or a number of GPUs."""
    if text is None or text == "all":
        return text
    if not text.isascii() or not text.isdigit():
        raise click.BadParameter(f"{text!r} is neither all nor a whole number")
    return int(text)


def pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """Read words NAME=VALUE.

    Raises:
        BadParameter: a word has no `=`, or a name comes twice.
    """
    read: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word!r} has no '='; write NAME=VALUE", param_hint=option)
        if name in read:
            raise click.BadParameter(f"{name} is given twice", param_hint=option)
        read[name] = value
    return read


def read_environment(
    files: Iterable[BinaryIO], words: Iterable[str], file_format: str | None = None
) -> dict[str, str]:
    """Read env files, then words: NAME=VALUE, or NAME alone to take the caller's own value.

    In a file a NAME that the caller does not have is passed over. A later file wins over an earlier one,
    and a word over all files. The `file_format` is `docker`, also if it is None, or `compose`; a file
    that is read by docker's rules and looks like one for compose is noted.

    Raises:
        BadParameter: a bad line of a file, a name in two words, or one that the caller's environment
            has not.
    """
    from atemporal import environment

    env: dict[str, str] = {}
    for file in files:
        name = getattr(file, "name", "<stdin>")
        try:
            text = file.read().decode()
            if file_format == "compose":
                env = compose_env.parse(text, own=os.environ.get, before=env)
                continue
            _note_compose(name, list(compose_env.suspects(text)))
            env |= environment.parse_lines(text, own=os.environ.get)
        except UnicodeDecodeError:
            raise click.BadParameter(
                f"{name} is not UTF-8 text", param_hint="--env-file"
            ) from None
        except ValueError as error:
            raise click.BadParameter(f"{name}: {error}", param_hint="--env-file") from None
    given: set[str] = set()
    for word in words:
        name, equals, value = word.partition("=")
        if name in given:
            raise click.BadParameter(f"{name} is given twice", param_hint="-e")
        given.add(name)
        if not equals and name not in os.environ:
            raise click.BadParameter(
                f"{name} is not in your environment; write {name}=VALUE, or export it",
                param_hint="-e",
            )
        env[name] = value if equals else os.environ[name]
    return env


def read_secrets(words: Iterable[str]) -> dict[str, str]:
    """Read words NAME, which takes the caller's own value, or NAME=@FILE, which takes a file's text.

    A newline at the end of a file is none of the value. A reference is passed over.

    Raises:
        BadParameter: a name comes twice, a value can not be had, or stands there itself.
    """
    secrets: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if source.startswith(REFERENCE_SCHEMES):
            continue
        if equals and not source.startswith("@"):
            raise _no_secret(
                f"{name}= is followed by neither @FILE nor a reference (ssm:NAME, "
                "secretsmanager:NAME, or an ARN). A value itself would be in the shell's history, and "
                f"`ps` would show it to everybody: export it and write {name} alone, or {name}=@FILE"
            )
        if name in secrets:
            raise _no_secret(f"{name} is given twice")
        if equals:
            secrets[name] = _text_of(source.removeprefix("@"))
        elif name in os.environ:
            secrets[name] = os.environ[name]
        else:
            raise _no_secret(
                f"{name} is not in your environment; export it, or write {name}=@FILE"
            )
    return secrets


def read_references(words: Iterable[str]) -> dict[str, str]:
    """Read words NAME=ssm:NAME or NAME=secretsmanager:NAME; others are passed over.

    Raises:
        BadParameter: a name comes twice, in whichever form.
    """
    references: dict[str, str] = {}
    given: set[str] = set()
    for word in words:
        name, _, source = word.partition("=")
        if name in given:
            raise _no_secret(f"{name} is given twice")
        given.add(name)
        if source.startswith(REFERENCE_SCHEMES):
            references[name] = source
    return references


def _text_of(path: str) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read(_LONGEST_FILE + 1).decode()
    except OSError as error:
        raise _no_secret(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _no_secret(f"{path} is not UTF-8 text") from None
    if len(text) > _LONGEST_FILE:
        raise _no_secret(f"{path} is too large for a variable")
    return text.removesuffix("\n").removesuffix("\r")


def _no_secret(why: str) -> click.BadParameter:
    return click.BadParameter(why, param_hint="--secret")


def _note_compose(file: str, suspects: Sequence[compose_env.Suspect]) -> None:
    """Say what docker keeps as it is and compose would not; by lines and names, never by values."""
    if not suspects:
        return
    lines = ", ".join(f"line {one.line} ({one.name})" for one in suspects[:_SUSPECTS])
    more = f" and {len(suspects) - _SUSPECTS} more" if len(suspects) > _SUSPECTS else ""
    note(
        f"{file} looks as if written for compose: {lines}{more}. It is read as docker reads it: quotes, "
        "comments behind a value and ${...} are parts of the value, and export is none of a name. If "
        "that is not meant, add --env-file-format compose"
    )


def attempt_of(tries: Mapping[int, T], number: int | None, job: str) -> T:
    """The attempt with that number, or the last one; `job` says which job it is and how it stands.

    Raises:
        NotFound: there is none; the message says why.
    """
    if not tries:
        raise NotFound(f"{job}: no attempt has been begun")
    if number is None:
        return tries[max(tries)]
    if number not in tries:
        raise NotFound(f"{job}: it has no attempt {number}; there is {', '.join(map(str, tries))}")
    return tries[number]
