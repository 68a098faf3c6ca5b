"""Secrets, of jobs of every ending and of the operator, looked for wherever somebody could read them.

Where each may stand is listed here and nowhere else: of a job the specification of it or of its
schedule in Postgres, and the message that brought it; of the operator a webhook's secret, in its table.
Everything else is read whole: a place that is new is read as well.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from uuid import UUID

import httpx
import kombu
import pytest
from sqlalchemy import create_engine, make_url, select, text

from atemporal import tokens
from atemporal.broker.topology import QUEUES
from atemporal.messages import COMMANDS, EVENTS, INTERNAL, SUBMIT
from atemporal.states import Outcome
from atemporal.store import api_tokens
from atemporal.tables import metadata
from services.api.ui.visitor import COOKIE
from tests.e2e.system import SERVICES, System, TwinProcess, ec2, instances
from tests.integration.receivers import Target, receiving
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

SECRET = "canary-Zq7+wx/Kp3=\nsecond 'line' of it: é"
VALUE = "canary-of-the-environment"
"""A variable's value: it is shown to who may read jobs, and is in no log, event or tag all the same."""

# What an operator knows: passwords, a key, and what the API has handed out once.
PASSWORD = "canary-of-the-{}-0123456789abcdef"
DATABASE, BROKER, REGISTRY, KEY = map(PASSWORD.format, ("database", "broker", "registry", "key"))
PRIVATE = "registry.example.com"

# Its job's own row, and the message as it came.
_MAY_HAVE = {("jobs", "spec"), ("schedules", "spec"), ("dead_letters", "body")}


def forms(planted: str) -> Iterator[bytes]:
    """The planted value as it may be written: each line, and all of it by the usual encodings."""
    for line in planted.split("\n"):
        yield line.encode()
        yield json.dumps(line)[1:-1].encode()
        yield quote(line, safe="").encode()
        yield repr(line)[1:-1].encode()
    raw = planted.encode()
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + raw)[4:-4]
    yield hashlib.sha256(raw).hexdigest().encode()


SECRETS, VALUES = tuple(forms(SECRET)), tuple(forms(VALUE))


def opened(data: bytes) -> Iterator[bytes]:
    """What is written, and what is packed in it as in a user-data: base64, gzip, both."""
    yield data
    for word in re.findall(rb"[A-Za-z0-9+/]{24,}={0,2}", data):
        try:
            inner = base64.b64decode(word, validate=True)
        except ValueError:
            continue
        yield inner
        try:
            yield gzip.decompress(inner)
        except (OSError, EOFError, zlib.error):
            continue


class Found:
    """All that was read, by the name of its place."""

    def __init__(self) -> None:
        self.places: dict[str, list[bytes]] = {}

    def read(self, place: str, content: Any) -> None:
        if not isinstance(content, bytes | str):
            content = json.dumps(content, default=str, ensure_ascii=False)
        data = content.encode() if isinstance(content, str) else content
        self.places.setdefault(place, []).append(data)

    def with_one_of(self, planted: tuple[bytes, ...]) -> set[str]:
        """The places where one of these stands."""
        return {
            place
            for place, contents in self.places.items()
            if any(one in part for data in contents for part in opened(data) for one in planted)
        }


@pytest.fixture(scope="module")
def hooked() -> Iterator[Target]:
    with receiving() as target:
        yield target


@pytest.fixture(scope="module")
def own_urls(
    database_url: str, broker_url: str, postgres_server: Postgres, rabbitmq_server: RabbitMQ
) -> tuple[str, str]:
    """Postgres and RabbitMQ, each for a user with a password that is looked for."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    with engine.begin() as tx:
        tx.execute(text(f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{DATABASE}'"))
    engine.dispose()
    rabbitmq_server.ctl("add_user", "canary", BROKER)
    vhost = unquote(urlsplit(broker_url).path[1:])
    rabbitmq_server.ctl("set_permissions", "-p", vhost, "canary", ".*", ".*", ".*")
    return _as_canary(database_url, DATABASE), _as_canary(broker_url, BROKER)


def _as_canary(url: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"canary:{password}@{host}"))


@pytest.fixture(scope="module")
def system(
    tmp_path_factory: pytest.TempPathFactory,
    own_urls: tuple[str, str],
    twin: TwinProcess,
    hooked: Target,
) -> Iterator[System]:
    """All services, which write all that they ever write."""
    auths = {PRIVATE: {"username": "canary", "password": REGISTRY}}
    registries = tmp_path_factory.mktemp("registries") / "config.json"
    registries.write_text(json.dumps({"auths": auths}))
    system = System(
        tmp_path_factory.mktemp("services"),
        database_url=own_urls[0],
        broker_url=own_urls[1],
        ec2_url=twin.url,
        certificates=twin.certificates,
        ATEMPORAL_CALLBACK_KEYS=f"k1:{KEY}",
        ATEMPORAL_REGISTRIES_FILE=str(registries),
        ATEMPORAL_LOG_LEVEL="debug",
        ATEMPORAL_WEBHOOK_HTTP="true",
        ATEMPORAL_WEBHOOK_NETWORKS="127.0.0.0/8",
    )
    system.start(*SERVICES)
    yield system
    system.close()


class Tap:
    """A copy of each message, but for what other systems ask for."""

    def __init__(self, url: str) -> None:
        self._connection = kombu.Connection(url)
        self._channel = self._connection.channel()
        self.queue = kombu.Queue("tap", durable=False, auto_delete=True)(self._channel)
        self.queue.declare()
        for exchange in (EVENTS, INTERNAL):
            self.queue.bind_to(exchange, "#")

    def publish(self, body: str | bytes, message_id: str) -> None:
        """Send a `job.submit`, whatever it is."""
        producer = kombu.Producer(self._channel)
        producer.publish(
            body.encode() if isinstance(body, str) else body,
            exchange=COMMANDS,
            routing_key="job.submit",
            message_id=message_id,
            content_type="application/json",
            content_encoding="utf-8",
        )

    def bodies(self) -> Iterator[bytes]:
        """What came, and what waits in any queue but that of submits."""
        for name in {"tap", *(queue.name for queue in QUEUES)} - {str(SUBMIT)}:
            queue = kombu.Queue(name, no_declare=True)(self._channel)
            while (message := queue.get(no_ack=name == "tap")) is not None:
                yield bytes(message.body) + json.dumps(message.headers, default=str).encode()

    def close(self) -> None:
        self._connection.release()


@pytest.fixture
def tap(system: System, broker_url: str) -> Iterator[Tap]:
    tap = Tap(broker_url)
    yield tap
    tap.close()


def everywhere(
    system: System, twin: TwinProcess, tap: Tap, ids: list[str], api_token: str
) -> Found:
    """Read all that there is to read."""
    found = Found()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.read("arguments of a process", process.read_bytes())
    for path in [*system.directory.glob("*.log"), twin.certificates.parents[1] / "twin.log"]:
        found.read(f"log {path.name}", path.read_bytes())
    with system.database.begin() as tx:
        for table in metadata.sorted_tables:
            for row in tx.execute(select(table)).mappings():
                for column, value in row.items():
                    if (table.name, column) not in _MAY_HAVE:
                        shown = bytes(value) if isinstance(value, memoryview) else value
                        found.read(f"table {table.name}.{column}", shown)
    for body in tap.bodies():
        found.read("AMQP", body)
    for one in instances(twin.url):
        found.read("DescribeInstances", one)
        attribute = ec2(twin.url).describe_instance_attribute(
            InstanceId=one["InstanceId"], Attribute="userData"
        )
        data = base64.b64decode(attribute["UserData"].get("Value", ""))
        found.read("user-data", data)
    found.read("calls of EC2", httpx.get(f"{twin.url}/_twin/calls").content)
    for name in SERVICES:
        found.read(f"metrics of {name}", system.metrics(name))
    read_api(system, found, ids)
    read_pages(system, found)
    read_command_line(system, found, ids, api_token)
    return found


def read_api(system: System, found: Found, ids: list[str]) -> None:
    """Ask by every GET that the API has, for everything that there is."""
    with httpx.Client(base_url=system.api_url, timeout=60) as http:
        letters = [one["id"] for one in http.get("/dead-letters").json()["dead_letters"]]
        of_path = {"job_id": ids, "letter_id": letters, "name": ["nightly"]}
        for path, calls in http.get("/openapi").json()["paths"].items():
            if "get" not in calls or "/callback" in path:
                continue
            names = re.findall(r"{(\w+)}", path)
            assert len(names) <= 1, f"{path}: say here what is to be asked for"
            for value in of_path[names[0]] if names else [""]:
                answer = http.get(path.replace(f"{{{names[0]}}}", value) if names else path)
                assert answer.status_code in (200, 422), (path, answer.text)
                found.read(f"GET {path}", answer.content)


def read_pages(system: System, found: Found) -> None:
    """Follow every link of the page."""
    seen, wanted = set(), ["/ui"]
    with httpx.Client(base_url=system.api_url, timeout=60, follow_redirects=True) as http:
        while wanted:
            path = wanted.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = http.get(path)
            found.read("the page", answer.content)
            links = re.findall(r'(?:href|data-\w+|src)="([^"#]+)"', answer.text)
            for link in links:
                there = str(answer.url.join(link.replace("&amp;", "&")))
                if there.startswith(f"{system.api_url}/ui"):
                    wanted.append(there.removeprefix(system.api_url))
    assert len(seen) > 10


def read_command_line(system: System, found: Found, ids: list[str], api_token: str) -> None:
    """What an operator is shown without `--reveal`; with it, what has no secrets all the same."""
    env = {
        **system.env,
        "ATEMPORAL_API_URL": system.api_url,
        "ATEMPORAL_API_TOKEN": api_token,
    }
    commands = [
        *(
            ("config",),
            ("config", "-o", "json"),
            ("token", "list"),
            ("webhook", "show", "nightly"),
        ),
        *(("webhook", "list", "-o", "json"), ("token", "list", "-o", "json")),
        *(("list", "-o", "json"), ("list",), ("dead", "list", "-o", "json"), ("events",)),
        *(("schedule", "show", "nightly"), ("schedule", "list", "-o", "json")),
        *(("show", one) for one in ids),
        *(("show", one, "-o", "json") for one in ids),
        *(("user-data", one) for one in ids),
    ]
    with httpx.Client(base_url=system.api_url, timeout=60) as http:
        letters = [one["id"] for one in http.get("/dead-letters").json()["dead_letters"]]
    revealed = [
        *(("show", one, "--reveal") for one in ids),
        ("schedule", "show", "nightly", "--reveal"),
        *(("dead", "show", one, "--reveal") for one in letters),
    ]
    for words in [*commands, *revealed]:
        done = _cli(words, env, system.directory)
        assert done.returncode == 0, (words, done.stderr)
        kind = "with --reveal" if "--reveal" in words else "command line"
        found.read(kind, done.stdout + done.stderr)
    for words in (("doctor",), ("doctor", "-o", "json")):
        done = _cli(words, env, system.directory)
        # The twin's network is no production's: what it finds is another test's.
        assert b"settings.values" in done.stdout, done.stderr
        found.read("doctor", done.stdout + done.stderr)
    for number, one in enumerate(ids):
        file = system.directory / f"bundle-{number}.zip"
        done = _cli(("bundle", one, "--to", str(file), "--with-output"), env, system.directory)
        assert done.returncode == 0, done.stderr
        with zipfile.ZipFile(file) as bundle:
            for name in bundle.namelist():
                found.read("bundle", bundle.read(name))


def _cli(
    words: tuple[str, ...], env: dict[str, str], directory: Path
) -> subprocess.CompletedProcess[bytes]:
    code = "from atemporal.cli import main; main(prog_name='atemporal')"
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**env, "PYTHONPATH": root},
        cwd=directory,
        capture_output=True,
        timeout=120,
        check=False,
    )


def refused(system: System, found: Found) -> None:
    """What is wrong with a job is answered without it."""
    bad: list[Any] = [
        {"secrets": SECRET},
        {"secrets": [SECRET]},
        {"secrets": {"A": [SECRET]}},
        {"secrets": {SECRET: "x"}},
        {"secrets": {"A": SECRET + "\0"}},
        {"secrets": {"A": SECRET}, "env": {"A": SECRET}},
        {"secret_refs": {"A": SECRET}},
        {"secret_refs": SECRET},
        {"secrets": {"A": SECRET}, "delivery": "inline"},
        {"secrets": {"A": SECRET}, "timeout_s": 0},
        {"secret": {"A": SECRET}},
        {"secrets": {"A": SECRET * 9_000}},
        {"secrets": {f"A{n}": SECRET * 2_000 for n in range(9)}},
        {"key": "known", "secrets": {"TOKEN": SECRET}},
    ]
    with httpx.Client(base_url=system.api_url, timeout=60) as http:
        for fields in bad:
            job = {"image": "busybox", **fields}
            answers = [
                http.post("/jobs", json=job),
                http.post("/jobs:batch", content=json.dumps(job)),
                http.post("/schedules", json={"name": "x", "cron": "@daily", "job": job}),
            ]
            for answer in answers[: 2 if "key" in fields else 3]:
                assert 400 <= answer.status_code < 500, (fields.keys(), answer.text)
                found.read("refusal", answer.content)


def test_a_secret_is_where_it_is_needed_and_nowhere_else(
    system: System, twin: TwinProcess, tap: Tap, hooked: Target
) -> None:
    refusal = {"kind": "missing", "call": "RunInstances", "match": {"instance_type": "c9.large"}}
    httpx.post(f"{twin.url}/_twin/faults", json=refusal).raise_for_status()
    with system.database.begin() as tx:
        api_token = api_tokens.create(tx, "canary", ["admin"])
    authorized = {"Authorization": f"Bearer {api_token}"}
    with httpx.Client(base_url=system.api_url, timeout=60, headers=authorized) as http:
        made = http.post("/webhooks", json={"name": "nightly", "url": hooked.url})
        signing = made.raise_for_status().json()["secret"]
        session = signed_in(http, api_token)
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    proves = f'test "$(printf %s "$TOKEN" | sha256sum | cut -c1-64)" = {digest[:32]}"$REST"'
    planted: dict[str, Any] = {
        "secrets": {"TOKEN": SECRET},
        "env": {"VALUE": VALUE, "REST": digest[32:]},
    }
    # It has it byte for byte; it fails twice; EC2 refuses its machine; it is run again by hand.
    well = system.submit("sh", "-c", proves, **planted, image=f"{PRIVATE}/reports/nightly")
    fails = system.submit("sh", "-c", "exit 3", max_attempts=2, backoff_s=0, **planted)
    unlaunched = system.submit(
        "true", machine={"instance_types": ["c9.large"]}, infra_retries=0, **planted
    )
    system.submit("true", key="known", delay_s=3600, secrets={"TOKEN": "another"})
    with httpx.Client(base_url=system.api_url, timeout=60) as http:
        schedule = {"name": "nightly", "cron": "@daily", "job": {"image": "busybox", **planted}}
        http.post("/schedules", json=schedule).raise_for_status()
        edited = {"job": {"secrets": {"TOKEN": None}, "command": ["true"], "ports": []}}
        http.patch("/schedules/nightly", json=edited).raise_for_status()
        fired = http.post("/schedules/nightly/run").json()["id"]
    job = {"image": "busybox", "command": ["true"], "ports": [], **planted}
    tap.publish(json.dumps({"type": "job.submit", "v": 1, "job": job}), "good")
    wrong = {**job, "timeout_s": "long"}
    tap.publish(json.dumps({"type": "job.submit", "v": 1, "job": wrong}), "wrong")
    tap.publish(json.dumps({**job, "secret": planted["secrets"]}), "misnamed")
    tap.publish(json.dumps({**job, "secerts": planted["secrets"]}), "misspelt")
    tap.publish(json.dumps({"image": "x", "secret_refs": {"A": SECRET}}), "misplaced")
    tap.publish(json.dumps(json.dumps(wrong)), "encoded twice")
    tap.publish(json.dumps({"type": "job.submit", "v": 1, "job": json.dumps(wrong)}), "nested")
    tap.publish(json.dumps(wrong).encode() + b"\xff", "no UTF-8")
    tap.publish(json.dumps({"image": "x", "secrets": {"A": SECRET}}) + "}", "broken")
    found = Found()
    refused(system, found)
    assert found.with_one_of(SECRETS) == set()

    assert system.wait_closed(well).outcome is Outcome.SUCCEEDED
    assert len(system.wait_closed(fails).attempts) == 2
    assert system.wait_closed(unlaunched).outcome is Outcome.FAILED
    httpx.post(f"{system.api_url}/jobs/{well}/retry").raise_for_status()
    assert system.wait_closed(well).outcome is Outcome.SUCCEEDED
    listed = httpx.get(f"{system.api_url}/jobs").json()["jobs"]
    ids = [one["id"] for one in listed if one["key"] != "known"]
    assert {str(well), str(fails), str(unlaunched), fired} < set(ids)
    assert len(ids) == 5
    system.wait("all ended", lambda: system.open_attempts() == 0)
    system.wait("eight dead letters", lambda: _letters(system) == 8)
    system.wait("events of all", lambda: _ended(hooked) >= len(ids))

    found = everywhere(system, twin, tap, ids, api_token)
    for got in hooked.got:
        found.read("webhook", got.body)
    assert len(found.places) > 60, "there was less to read than there is"
    assert found.with_one_of(SECRETS) == set()
    operators = {
        "database": DATABASE,
        "broker": BROKER,
        "registry": REGISTRY,
        "key": KEY,
        "API token": api_token,
        "session": session,
        "signing": signing.removeprefix("whsec_"),
        **{f"callbacks of {one}": token for one, token in callback_tokens(system, ids).items()},
    }
    places = {name: found.with_one_of(tuple(forms(one))) for name, one in operators.items()}
    assert {name: where for name, where in places.items() if where} == {
        # Of these two the SHA-256 alone; with the third requests are signed.
        "API token": {"table api_tokens.hash"},
        "session": {"table sessions.hash"},
        "signing": {"table webhooks.secret"},
    }
    # Who may read jobs may read their environment; EC2 is told none of it, as they are by claim.
    shown = {
        *("with --reveal", "GET /jobs", "GET /jobs/{job_id}", "GET /dead-letters/{letter_id}"),
        *("GET /schedules", "GET /schedules/{name}", "GET /overview"),
    }
    assert found.with_one_of(VALUES) <= shown


def signed_in(http: httpx.Client, api_token: str) -> str:
    """Sign in on the page; return the session's secret."""
    origin = {"Sec-Fetch-Site": "same-origin"}
    form = {"token": api_token, "next": ""}
    answer = http.post("/ui/sign-in", data=form, headers=origin)
    secret = answer.cookies.get(COOKIE)
    assert secret, answer.text
    return secret


def callback_tokens(system: System, ids: list[str]) -> dict[str, str]:
    """What the machines of these jobs have shown to the API."""
    return {
        one.ref.id: tokens.mint({"k1": KEY.encode()}, "k1", "default", one.ref.id)
        for job_id in ids
        for one in system.job(UUID(job_id)).attempts
    }


def _letters(system: System) -> int:
    return len(httpx.get(f"{system.api_url}/dead-letters").json()["dead_letters"])


def _ended(hooked: Target) -> int:
    return sum(one["type"].startswith("job.finished") for one in hooked.accepted)


def test_it_is_found_by_whatever_encoding() -> None:
    """Else the test above would prove nothing."""
    leaks: list[bytes] = [
        f"password is {SECRET}!".encode(),
        json.dumps({"env": SECRET}).encode(),
        b"x" + base64.b64encode(f"TOKEN={SECRET}".encode()),
        base64.b64encode(gzip.compress(f"env=TOKEN={SECRET}\0".encode())),
        repr({"env": SECRET}).encode(),
        quote(SECRET).encode(),
    ]
    for number, leak in enumerate(leaks):
        found = Found()
        found.read("place", leak)
        assert found.with_one_of(SECRETS) == {"place"}, number
