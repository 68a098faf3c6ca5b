"""What a bundle tells of a job: each part made by itself, without the secrets that are known.

Promise: a part that can not be had is named with the reason, and holds up no other. Values of
environments, tokens, keys and passwords are in none of them; what the container wrote only if asked for.
The user-data's digest is of the very bytes, with the token in them: without the token nobody can try out
values of the environment against it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from atemporal import __version__, tokens, userdata
from atemporal.cli.admin import effective
from atemporal.cli.masks import masked_env
from atemporal.cli.scrubber import Scrubber
from atemporal.cli.session import API_TOKEN, Session
from atemporal.cloud import Cloud, Instance
from atemporal.cloud.instance import client_token, group_token, tags_of, tags_of_group
from atemporal.cloud.launch_request import build
from atemporal.errors import AtemporalError, NotFound, Unavailable, Unreadable
from atemporal.job_view import EventView, JobView
from atemporal.model import Attempt, Job, LaunchGroup
from atemporal.model.secret import revealed
from atemporal.settings import Settings
from atemporal.states import AttemptState
from atemporal.store import concurrency_limits, dead_letters, events, groups, jobs, logs, server
from atemporal.tables import REVISION

CONSOLES = 10
"""The consoles of so many of the last attempts are read."""
_LETTERS = 50
_LIMIT_CHANGES = 100
_SECRET_VARIABLES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    *("PGPASSWORD", API_TOKEN),
)
# The password of the default URLs is a word of ours, and in every line.
_NO_SECRETS = ("atemporal",)
_PACKAGES = ("boto3", "botocore", "click", "kombu", "pydantic", "psycopg2", "sqlalchemy", "tzdata")
# The container's output, in base64; the kernel may have written into the line, or its beginning be lost.
_LOG_DATA = re.compile(r"(?P<marked>atemporal-log \S+ )\S+|[\w+/]{100,}=*")
_UNSHOWN = {"claim", "instance_proof", "log_tail", "launch"}


class Evidence:
    """The parts of one job's bundle: `files` by their names, with what each is; `missing` with why."""

    def __init__(self, session: Session, job_id: UUID, *, with_output: bool) -> None:
        """Take whose evidence; `collect` asks for it."""
        self.files: dict[str, tuple[str, bytes]] = {}
        self.missing: list[dict[str, str]] = []
        self._session = session
        self._job_id = job_id
        self._with_output = with_output
        self._job: Job | None = None
        self._groups: dict[UUID, LaunchGroup] = {}
        self._scrubber = Scrubber(())

    def collect(self) -> None:
        """Ask for every part."""
        settings = self._session.settings
        self._scrubber = Scrubber(_secrets_of(settings))
        self._part(
            "job.json", "the job as the API gives it, its environment masked", self._read_job
        )
        self._part("events.json", "its history, the oldest first", self._history)
        if self._job is not None:
            self._part(
                "attempts.json", "its attempts as recorded, with their calls", self._attempts
            )
            self._ask_ec2(self._job)
            if self._with_output:
                self._output(self._job)
        self._part("dead-letters.json", "dead letters that name it, without bodies", self._letters)
        self._part(
            "limits.json", "concurrency limits: in force, and who changed them", self._limits
        )
        self._part(
            "settings.json", "the settings here, as `atemporal config` shows them", self._settings
        )
        self._part("versions.json", "releases of what runs here", self._versions)
        self._part(
            "postgres.json", "the server's release, the tables' step, the clocks", self._postgres
        )
        self._part("rabbitmq.json", "the broker's release", self._rabbitmq)
        self._part("api.json", "what the API answers to `GET /`, and the clocks", self._api)

    def scrubbed(self, value: Any) -> Any:
        """What JSON is made of, without the secrets that are known."""
        return self._scrubber.value(value)

    def _part(
        self, name: str, description: str, make: Callable[[], Any], *, cut: bool = False
    ) -> None:
        """Make a part: JSON of a value, or a text as it is."""
        try:
            made = make()
        except (AtemporalError, LookupError, ValueError) as error:
            self._lacks(name, str(error) or type(error).__name__)
            return
        if isinstance(made, str):
            text = self._scrubber.text(made, cut=cut)
        else:
            text = json.dumps(self.scrubbed(made), indent=2, default=str) + "\n"
        self.files[name] = (description, text.encode(errors="replace"))

    def _lacks(self, name: str, why: str) -> None:
        self.missing.append({"part": name, "why": self._scrubber.text(why)})

    def _read_job(self) -> dict[str, Any]:
        settings = self._session.settings
        with self._session.database.begin() as tx:
            job = self._job = jobs.get(tx, self._job_id)
            for group_id in {one.group_id for one in job.attempts if one.group_id}:
                try:
                    self._groups[group_id] = groups.get(tx, group_id)
                except (NotFound, Unreadable) as error:
                    self._lacks(f"attempts.json: launch group {group_id}", str(error))
        known = (*_secrets_of(settings), *_secrets_of_job(settings, job, self._groups))
        self._scrubber = Scrubber(known)
        env = masked_env(job.spec.env, reveal=False)
        return JobView.of(job, deadlines=settings.deadlines, env=env).model_dump(mode="json")

    def _history(self) -> list[dict[str, Any]]:
        with self._session.database.begin() as tx:
            return [
                EventView.of(one).model_dump(mode="json")
                for one in events.of_job(tx, self._job_id)
            ]

    def _attempts(self) -> list[dict[str, Any]]:
        assert self._job is not None
        return [self._attempt(self._job, one) for one in self._job.attempts]

    def _attempt(self, job: Job, one: Attempt) -> dict[str, Any]:
        settings = self._session.settings
        group = self._groups.get(one.group_id) if one.group_id else None
        launch = group.launch if group else one.launch
        data, description = self._user_data(job, one, group)
        if group:
            call_token = group_token(group.id, launch.placement)
            tags = tags_of_group(settings.deployment, group.id)
        else:
            call_token = client_token(one.ref, launch.placement)
            tags = tags_of(settings.deployment, one.ref)
            launch = launch.labelled(job.spec.labels)
        size = group.size if group else 1
        call = build(call_token, tags, size, launch, data, image=None)
        del call["BlockDeviceMappings"]  # they follow from what EC2 says of the image
        return {
            **one.model_dump(mode="json", exclude=_UNSHOWN),
            "launch": one.launch.model_dump(mode="json"),
            "launch_group": group and group.model_dump(mode="json"),
            "RunInstances": {
                "state": _called(one, group),
                "calls": launch.calls,
                "parameters": {**call, "UserData": description},
            },
        }

    def _user_data(
        self, job: Job, one: Attempt, group: LaunchGroup | None
    ) -> tuple[bytes, dict[str, Any]]:
        """The user-data of an attempt's machine, and what is told of it."""
        settings = self._session.settings
        keys, key_id = _keys(settings), (group or one).launch.key_id
        if key_id not in keys:
            return b"", {"unknown": f"the callback key {key_id!r} is not among those set here"}
        try:
            if group:
                token = tokens.mint(keys, key_id, settings.deployment, str(group.id), "group")
                data = userdata.render_group(group.id, group.launch, token)
            else:
                purpose = userdata.purpose_of(one.launch)
                token = tokens.mint(keys, key_id, settings.deployment, one.ref.id, purpose)
                data = userdata.render(one.ref, job.spec, one.launch, token)
        except AtemporalError as error:
            return b"", {"unknown": str(error)}
        return data, {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _ask_ec2(self, job: Job) -> None:
        ids = [one.instance_id for one in job.attempts if one.instance_id]
        unlaunched = [one for one in job.attempts if not one.instance_id and one.closed_at is None]
        try:
            with Cloud(self._session.settings) as cloud:
                self._part(
                    "ec2.json",
                    "its instances as EC2 shows them now, for about an hour beyond their end",
                    lambda: [
                        _shown(one)
                        for one in (
                            *cloud.describe(ids).values(),
                            *(found for one in unlaunched for found in cloud.find(one.ref)),
                        )
                    ],
                )
                if any(one["part"] == "ec2.json" for one in self.missing):
                    self._lacks("console-*.txt", "EC2 could not be asked, see ec2.json")
                    return
                for one in job.attempts[-CONSOLES:]:
                    if one.instance_id:
                        self._part(
                            f"console-{one.number}.txt",
                            f"the serial console of attempt {one.number}, without the output in it",
                            partial(console_text, cloud, one.instance_id),
                            cut=True,
                        )
        except AtemporalError as error:
            self._lacks("ec2.json", str(error))

    def _output(self, job: Job) -> None:
        for one in job.attempts:
            if one.log_tail:
                self._part(
                    f"output-{one.number}-tail.txt",
                    f"the end of what attempt {one.number} wrote, as its machine reported it",
                    partial(one.log_tail.decode, errors="replace"),
                    cut=True,
                )
            for start, data in self._kept(one):
                self._part(
                    f"output-{one.number}-from-{start}.txt",
                    f"what attempt {one.number} wrote from byte {start} on, as kept while it ran",
                    partial(data.decode, errors="replace"),
                    cut=True,
                )

    def _kept(self, one: Attempt) -> list[tuple[int, bytes]]:
        """The kept output, one piece for each that is without a gap."""
        pieces: list[tuple[int, bytes]] = []
        after = 0
        try:
            while True:
                with self._session.database.begin() as tx:
                    chunks = logs.page(tx, one.ref, after)
                for chunk in chunks:
                    if pieces and pieces[-1][0] + len(pieces[-1][1]) == chunk.start:
                        pieces[-1] = (pieces[-1][0], pieces[-1][1] + chunk.data)
                    else:
                        pieces.append((chunk.start, chunk.data))
                    after = chunk.end
                if len(chunks) < logs.PAGE_CHUNKS:
                    return pieces
        except AtemporalError as error:
            self._lacks(f"output-{one.number}-*.txt", str(error))
            return pieces

    def _letters(self) -> list[dict[str, Any]]:
        unshown = {"body", "properties", "deaths"}
        with self._session.database.begin() as tx:
            found = dead_letters.of_job(tx, self._job_id, limit=_LETTERS)
        return [one.model_dump(mode="json", exclude=unshown) for one in found]

    def _limits(self) -> dict[str, Any]:
        with self._session.database.begin() as tx:
            limits = concurrency_limits.listing(tx)
            changes = concurrency_limits.changes(tx, limit=_LIMIT_CHANGES)
        return {
            "limits": [one._asdict() for one in limits],
            "changes": [one._asdict() for one in changes],
        }

    def _settings(self) -> list[dict[str, Any]]:
        return effective(self._session.settings)

    def _versions(self) -> dict[str, Any]:
        return {
            "atemporal": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "packages": {name: _release(name) for name in _PACKAGES},
        }

    def _postgres(self) -> dict[str, Any]:
        before = datetime.now(UTC)
        with self._session.database.begin() as tx:
            found, step, now = server.facts(tx), server.step(tx), server.clock(tx)
        facts = {"version": found.version, "standby": found.standby, "read_only": found.read_only}
        facts |= {"step": step, "needed_step": REVISION}
        return {**facts, **_clocks(before, now, datetime.now(UTC))}

    def _rabbitmq(self) -> dict[str, Any]:
        from atemporal.broker.server import version

        return {"version": version(self._session.settings.broker_url.get_secret_value())}

    def _api(self) -> dict[str, Any]:
        before = datetime.now(UTC)
        found = self._session.api.get("/")
        now = datetime.fromisoformat(found["now"]) if "now" in found else None
        return {"answer": found, **(_clocks(before, now, datetime.now(UTC)) if now else {})}


def _clocks(before: datetime, theirs: datetime, after: datetime) -> dict[str, Any]:
    """How far another clock is ahead of this one, in ms, and how sure that is."""
    middle = before + (after - before) / 2
    return {
        "asked_at": before.isoformat(),
        "ahead_of_here_ms": round((theirs - middle).total_seconds() * 1000),
        "within_ms": round((after - before).total_seconds() * 500),
    }


def _called(one: Attempt, group: LaunchGroup | None) -> str:
    launch = group.launch if group else one.launch
    if one.instance_id:
        return "answered: it has its instance"
    if one.state in (AttemptState.EXITED, AttemptState.CLOSED):
        return "over: it ended without an instance"
    if not launch.calls:
        return "not sent yet"
    if launch.unsure_at:
        return "may have launched: it is repeated just so until EC2's answer is sure"
    return "refused: it is tried again, perhaps with another placement"


def _shown(one: Instance) -> dict[str, Any]:
    return {**asdict(one), "tags": dict(one.tags)}


def console_text(cloud: Cloud, instance_id: str) -> str:
    """An instance's console, without what the container wrote.

    Raises:
        Unavailable: EC2 has none, or can not be asked.
        Refused: EC2 will not say.
    """
    text = cloud.console(instance_id)
    if not text:
        raise Unavailable(f"EC2 has no console output of {instance_id}")
    return _LOG_DATA.sub(
        lambda found: f"{found['marked'] or ''}[{len(found[0])} characters left out]", text
    )


def _release(package: str) -> str:
    for name in (package, f"{package}-binary"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _secrets_of(settings: Settings) -> Iterator[str]:
    """The secrets of this process: of its settings and of its environment."""
    yield settings.api_token.get_secret_value()
    for pair in settings.callback_keys.get_secret_value().split(","):
        yield pair.strip().partition(":")[2]
    urls = (settings.database_url, settings.broker_url)
    for url in (*(one.get_secret_value() for one in urls), settings.ec2_endpoint_url or ""):
        yield from _passwords(url)
    yield from (os.environ.get(name, "") for name in _SECRET_VARIABLES)


def _passwords(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0].partition(":")[2]
    named = [
        pair.partition("=")[2]
        for pair in parts.query.split("&")
        if pair.partition("=")[0] in ("password", "sslpassword")
    ]
    for one in (userinfo, *named):
        if one not in _NO_SECRETS:
            yield from (one, unquote(one))


def _secrets_of_job(
    settings: Settings, job: Job, known: Mapping[UUID, LaunchGroup]
) -> Iterator[str]:
    """What only the job's machines and its submitter know."""
    yield from (one for one in job.spec.env.values() if one not in _NO_SECRETS)
    yield from revealed(job.spec.secrets).values()
    keys = _keys(settings)
    for kid in keys:
        for one in job.attempts:
            yield tokens.mint(keys, kid, settings.deployment, one.ref.id)
            yield tokens.mint(keys, kid, settings.deployment, one.ref.id, "assignment")
        for group_id in known:
            yield tokens.mint(keys, kid, settings.deployment, str(group_id), "group")
    for one in job.attempts:
        yield from filter(None, (one.claim, one.instance_proof))


def _keys(settings: Settings) -> dict[str, bytes]:
    """The callback keys; none where none is set."""
    try:
        return settings.keys
    except AtemporalError:
        return {}
