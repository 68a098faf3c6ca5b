"""`atemporal doctor` on a real Postgres, RabbitMQ and twin: a sound installation is all ok, and each
planted fault is named by its check, with what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from atemporal import broker
from atemporal.broker import DEAD, QUEUES, Link
from atemporal.cli import main
from atemporal.doctor import CHECKS, Instruments, Result, Status, examination, examine
from atemporal.errors import Service, Unavailable
from atemporal.health import HealthServer
from atemporal.messages import LAUNCH, REAP, SCHEDULE, SUBMIT
from atemporal.model import AttemptRef, Launch, parse_spec
from atemporal.settings import Settings
from atemporal.store import pauses
from atemporal.store.database import Database
from atemporal.store.rate_limits import Bucket, Size, Want, take
from atemporal.tables import metadata
from atemporal.twin.catalogue import IMAGES
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from services.launcher.launcher import Launcher
from tests.answering import Answer, answering
from tests.api import Api
from tests.integration.recurring import make
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

KEYS = "k1:0123456789abcdef0123456789abcdef"
DEPLOYMENT = "doctored"
DAEMONS = ("scheduler", "launcher", "reaper", "api")
SUBNET, GROUP = "subnet-0123456789abcdef0", "sg-0123456789abcdef0"
BY_NAME = {check.name: check for check in CHECKS}
pytestmark = pytest.mark.usefixtures("own_output", "readers")


def image(name: str) -> str:
    """The id of the twin's image whose name holds this."""
    return next(str(one["imageId"]) for one in IMAGES if name in str(one["name"]))


@dataclass
class _Loop:
    name: str = "sweep"


class _Runner:
    loop = _Loop()
    healthy = True
    error = ""

    @property
    def last_tick_at(self) -> float:
        return monotonic()


@dataclass
class Installation:
    """All of one: its servers, and the settings by which it is sound."""

    database: Database
    twin: Twin
    settings: dict[str, Any]
    health: str
    management: str
    instance: str

    def instruments(self, **changes: Any) -> Instruments:
        """An examination's, with some settings changed; without changes EC2's client is shared."""
        made = Instruments({}, management=self.management, health=[self.health])
        made.__dict__["settings"] = Settings(**{**self.settings, **changes})
        return made

    def environment(self, **changes: str) -> dict[str, str]:
        """The variables of its daemons."""
        found = {
            f"ATEMPORAL_{name.upper()}": _text(value) for name, value in self.settings.items()
        }
        return {**found, **changes}

    def __call__(
        self, name: str, instruments: Instruments | None = None, **changes: Any
    ) -> Result:
        """What the check says; those that it needs are made first."""
        wanted: list[str] = [name]
        for one in wanted:
            wanted += [need for need in BY_NAME[one].needs if need not in wanted]
        checks = [check for check in CHECKS if check.name in wanted]
        with instruments or self.instruments(**changes) as used:
            return {check.name: result for check, result in examine(checks, used)}[name]


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _managed() -> list[Answer]:
    """What the management API answers about a vhost with our bindings and one harmless policy."""
    bindings = [
        {
            "source": queue.exchange.name,
            "destination": queue.name,
            "destination_type": "queue",
            "routing_key": queue.routing_key,
        }
        for queue in QUEUES
    ]
    policy = {"name": "ha", "pattern": ".*", "apply-to": "all", "definition": {"ha-mode": "all"}}
    return [Answer(200, json.dumps(one).encode()) for one in (bindings, [policy], [])]


@pytest.fixture(scope="module")
def sound(
    database: Database,
    database_url: str,
    broker_url: str,
    api: Api,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """An installation in which nothing is wrong, with an instance that lives."""
    broker.declare(broker_url)
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("twin")
        twin = stack.enter_context(Twin(directory, engine="process", pace=Pace(pending_s=3600)))
        for name in DAEMONS:
            seen = Database(database_url, application=f"atemporal {name}")
            stack.callback(seen.dispose)
            seen.ping()
        health = stack.enter_context(HealthServer([_Runner()], "127.0.0.1", 0))
        managed, _ = stack.enter_context(answering(*_managed() * 50))
        settings = {
            "database_url": database_url,
            "broker_url": broker_url,
            "callback_url": str(api.http.base_url).rstrip("/"),
            "callback_keys": KEYS,
            "ec2_endpoint_url": twin.url,
            "identity_certificates": str(twin.identity_certificates),
            "deployment": DEPLOYMENT,
            "subnets": (SUBNET,),
            "security_groups": (GROUP,),
            "key_name": "ours",
        }
        installation = Installation(database, twin, settings, health.url, managed, "")
        with installation.instruments() as made:
            cloud = made.ec2.cloud
            launch = Launch(
                image_id=cloud.resolve_image(),
                instance_type="t3.small",
                callback_base="http://127.0.0.1:9",
                key_id="k1",
                deadline_s=60,
            )
            installation.instance = cloud.run(AttemptRef(uuid4(), 1), launch, b"x").id
        yield installation


@pytest.fixture(scope="module")
def links(broker_url: str, sound: Installation) -> Iterator[dict[str, Link]]:
    """A reader of each queue, as the daemons have."""
    made = {
        name: Link(broker_url, name="test", declare=False)
        for name in (SUBMIT, SCHEDULE, LAUNCH, REAP, DEAD)
    }
    yield made
    for link in made.values():
        link.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes forty checks at once in more than the seconds that a person waits."""
    monkeypatch.setattr(examination, "LIMIT_S", 120.0)


@pytest.fixture
def readers(links: dict[str, Link]) -> None:
    """All of them are there, and known to be alive."""
    for name, link in links.items():
        assert link.receive(name, limit=1, timeout_s=0.0) == []


def blames(result: Result, *words: str, status: Status = Status.WRONG) -> None:
    """Assert that a check is not content, names what is wrong, and says what to do."""
    assert result.status is status, result
    for word in words:
        assert word in f"{result.detail} -> {result.do}", result
    assert result.do, result


def run(sound: Installation, *words: str, code: int = 0, **changes: str) -> Any:
    """Call the command; returns its JSON."""
    options = ["--management", sound.management, "--health", sound.health]
    done = CliRunner(env=sound.environment(**changes)).invoke(
        main, ["doctor", "-o", "json", *options, *words], catch_exceptions=False
    )
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


class TestTheWhole:
    def test_a_sound_installation_is_all_ok(self, sound: Installation) -> None:
        record = run(sound)
        bad = [one for one in record["checks"] if one["status"] != "ok"]
        assert bad == []
        assert [one["name"] for one in record["checks"]] == [check.name for check in CHECKS]
        assert record["ok"]
        assert record["counts"] == {"ok": len(CHECKS), "warning": 0, "wrong": 0, "unchecked": 0}

    def test_it_changes_nothing(self, sound: Installation, broker_url: str) -> None:
        def seen() -> Any:
            with sound.database.begin() as tx:
                tables = {
                    name: tx.scalars(text(f"SELECT t::text FROM {name} AS t ORDER BY 1")).all()
                    for name in metadata.tables
                }
            with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
                channel = connection.channel()
                queues = {
                    name: channel.queue_declare(name, passive=True).method.message_count
                    for name in (SUBMIT, SCHEDULE, LAUNCH, REAP, DEAD)
                }
            return tables, queues, len(sound.twin._now.host.state.instances())

        before = seen()
        run(sound)
        assert seen() == before

    def test_nobody_answers(self, sound: Installation) -> None:
        record = run(
            sound,
            code=3,
            ATEMPORAL_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
            ATEMPORAL_BROKER_URL="amqp://guest:guest@127.0.0.1:1//",
            ATEMPORAL_EC2_ENDPOINT_URL="http://127.0.0.1:1",
        )
        status = {one["name"]: one["status"] for one in record["checks"]}
        assert status["settings.values"] == status["callback.answers"] == "ok"
        assert {status[f"{one}.reachable"] for one in ("database", "broker", "ec2")} == {"wrong"}
        assert status["database.migrations"] == status["records.promises"] == "unchecked"
        assert not any(
            one["status"] == "ok" for one in record["checks"] if one["name"].startswith("ec2.")
        )

    def test_a_wrong_setting_is_a_result_and_no_crash(self, sound: Installation) -> None:
        record = run(sound, code=1, ATEMPORAL_API_PORT="many")
        first = record["checks"][0]
        assert (first["name"], first["status"]) == ("settings.values", "wrong")
        assert "ATEMPORAL_API_PORT" in first["detail"]
        by_name = {one["name"]: one for one in record["checks"]}
        assert by_name["ec2.image"]["status"] == "unchecked"
        assert by_name["zones.rules"]["status"] == "ok"

    def test_an_unknown_setting(self, sound: Installation) -> None:
        record = run(sound, ATEMPORAL_SUBNET="subnet-1")
        (named,) = (one for one in record["checks"] if one["name"] == "settings.names")
        assert named["status"] == "warning"
        assert "did you mean ATEMPORAL_SUBNETS?" in named["detail"]

    def test_a_price_table_that_is_not_there_or_lacks_the_type(
        self, sound: Installation, tmp_path: Path
    ) -> None:
        table = tmp_path / "prices.csv"
        blames(
            sound("settings.prices", prices_file=str(table)), str(table), "atemporal prices check"
        )
        table.write_text("item,region,on_demand_usd,spot_usd\nx9.huge,,1,\n")
        lacking = sound("settings.prices", prices_file=str(table))
        default = Settings.model_fields["instance_type"].default
        blames(lacking, default, "add its price", status=Status.WARNING)

    def test_what_opens_registries_and_can_not_be_read(
        self, sound: Installation, tmp_path: Path
    ) -> None:
        file = tmp_path / "config.json"
        blames(
            sound("settings.registries", registries_file=str(file)), str(file), "correct the file"
        )
        file.write_text('{"auths": {"registry.example.com": {}}, "credsStore": "pass"}')
        found = sound("settings.registries", registries_file=str(file))
        blames(found, "registry.example.com has no user and password", "correct the file")

    def test_a_certificate_that_is_missing_keeps_no_other_check_from_being_made(
        self, sound: Installation
    ) -> None:
        missing = "/nowhere.pem"
        found = sound("settings.identity", identity_certificates=missing)
        blames(found, missing)
        whole = sound("database.reachable", identity_certificates=missing)
        assert whole.status is Status.OK


class TestDatabase:
    @contextmanager
    def at_step(self, sound: Installation, step: str) -> Iterator[None]:
        set_step = text("UPDATE alembic_version SET version_num = :step")
        with sound.database.begin() as tx:
            before = tx.scalar(text("SELECT version_num FROM alembic_version"))
            tx.execute(set_step, {"step": step})
        try:
            yield
        finally:
            with sound.database.begin() as tx:
                tx.execute(set_step, {"step": before})

    def test_stale_migrations(self, sound: Installation) -> None:
        with self.at_step(sound, "0020"):
            blames(sound("database.migrations"), "step 0020", "atemporal db upgrade")
            assert sound("records.promises").status is Status.UNCHECKED

    def test_newer_migrations(self, sound: Installation) -> None:
        with self.at_step(sound, "9999"):
            found = sound("database.migrations")
            blames(found, "step 9999", "newer", "upgrade", status=Status.WARNING)
            assert sound("records.promises").status is Status.OK

    def test_no_tables_of_ours(self, sound: Installation, postgres_server: Postgres) -> None:
        empty = sound.instruments(database_url=postgres_server.create_database())
        blames(sound("database.migrations", empty), "no tables of ours", "atemporal db upgrade")

    @pytest.fixture
    def role(self, sound: Installation) -> Iterator[str]:
        """A user of the database who has no rights yet."""
        name = f"doctor_{uuid4().hex}"
        with sound.database.begin() as tx:
            tx.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'"))
        yield name
        with sound.database.begin() as tx:
            tx.execute(text(f"DROP OWNED BY {name}"))
            tx.execute(text(f"DROP ROLE {name}"))

    def test_a_right_that_is_missing(self, sound: Installation, role: str) -> None:
        with sound.database.begin() as tx:
            tx.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
            tx.execute(text(f"GRANT ALL ON jobs TO {role}"))
        url = _as(sound.settings["database_url"], role, "pw")
        found = sound("database.rights", database_url=url)
        blames(found, role, "INSERT, UPDATE, DELETE on attempts", "GRANT")
        assert " on jobs" not in found.detail

    def test_a_database_that_takes_no_writes(self, sound: Installation, role: str) -> None:
        with sound.database.begin() as tx:
            tx.execute(text(f"ALTER ROLE {role} SET default_transaction_read_only = on"))
        url = _as(sound.settings["database_url"], role, "pw")
        found = sound("database.reachable", database_url=url)
        blames(found, "default_transaction_read_only is on", "switch it off")


class TestRecords:
    def test_a_pause(self, sound: Installation) -> None:
        with sound.database.begin() as tx:
            pauses.begin(tx, actor="ada", reason="Postgres is exchanged")
        try:
            found = sound("records.pause")
            blames(
                found, "ada", "Postgres is exchanged", "atemporal resume", status=Status.WARNING
            )
        finally:
            with sound.database.begin() as tx:
                pauses.end(tx, actor="ada")
        assert sound("records.pause").status is Status.OK

    def test_a_promise_that_is_broken(self, sound: Installation, api: Api) -> None:
        job_id = api.submitted()
        with sound.database.begin() as tx:
            tx.execute(text("DELETE FROM events WHERE job_id = :id"), {"id": job_id})
            tx.execute(
                text(
                    "INSERT INTO events (job_id, attempt, type, actor, relayed)"
                    " VALUES (:id, 0, 'job.queued', 'test', true)"
                ),
                {"id": job_id},
            )
        try:
            blames(sound("records.promises"), str(job_id), "atemporal audit")
        finally:
            self.forget(sound)

    def test_what_does_not_fit_into_a_machines_user_data(
        self, sound: Installation, api: Api
    ) -> None:
        job_id = api.submitted(time="2099-01-01T00:00:00Z")
        make(sound.database, name="nightly")
        # As a release with more room would have taken it.
        large = {"A": "".join(uuid4().hex for _ in range(600))}
        env = {"large": json.dumps({"env": large, "delivery": "inline"})}
        with sound.database.begin() as tx:
            for table in ("jobs", "schedules"):
                grow = f"UPDATE {table} SET spec = spec || CAST(:large AS jsonb)"
                tx.execute(text(grow), env)
        try:
            found = sound("records.user-data")
            blames(found, f"job {job_id}", "schedule nightly", "shorten the environment")
        finally:
            self.forget(sound)

    def test_a_limit_without_tokens(self, sound: Installation) -> None:
        size = Size(Bucket(1.0, 0.001), Bucket(1.0, 0.001))
        with sound.database.each() as connection:
            take(connection, "run_instances", size, Want("test"))
        slow = sound.instruments(run_instances_burst=1.0, run_instances_rate=0.001)
        try:
            found = sound("records.rate-limits", slow)
            blames(found, "run_instances", "ATEMPORAL_*_RATE", status=Status.WARNING)
        finally:
            with sound.database.begin() as tx:
                tx.execute(text("DELETE FROM rate_limits"))

    def test_a_dead_letter_that_nobody_has_decided_on(self, sound: Installation) -> None:
        insert = text(
            "INSERT INTO dead_letters (id, state, reason, detail, body, body_size, properties,"
            " digest, received_at, errors, deaths)"
            " VALUES (:id, 'kept', 'unknown', 'd', '', 0, '{}', 'x', now(), '{}', '[]')"
        )
        with sound.database.begin() as tx:
            tx.execute(insert, {"id": uuid4()})
        try:
            found = sound("records.dead-letters")
            blames(
                found,
                "1 dead letter waits",
                "atemporal dead list",
                status=Status.WARNING,
            )
        finally:
            with sound.database.begin() as tx:
                tx.execute(text("DELETE FROM dead_letters"))

    def forget(self, sound: Installation) -> None:
        with sound.database.begin() as tx:
            tx.execute(text("TRUNCATE jobs, attempts, events, schedules CASCADE"))


class TestBroker:
    @pytest.fixture
    def vhost(self, rabbitmq_server: RabbitMQ) -> str:
        """A virtual host that is declared, for one test to spoil."""
        url = rabbitmq_server.create_vhost()
        broker.declare(url)
        return url

    def test_what_is_missing_or_is_otherwise(self, sound: Installation, vhost: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(vhost)) as connection:
            channel = connection.channel()
            channel.queue_delete(REAP)
            channel.queue_delete(LAUNCH)
            channel.queue_declare(LAUNCH, durable=True, arguments={"x-queue-type": "quorum"})
            channel.exchange_delete("atemporal.events")
            channel.exchange_delete("atemporal")
            channel.exchange_declare("atemporal", "direct", durable=True)
        blames(
            sound("broker.topology", broker_url=vhost),
            f"there is no queue {REAP}",
            f"queue {LAUNCH} is not as declared: x-dead-letter-exchange",
            "there is no exchange atemporal.events",
            "exchange atemporal is not as declared: type",
            "atemporal broker declare",
        )
        assert sound("broker.rights", broker_url=vhost).status is Status.OK
        blames(
            sound("broker.consumers", broker_url=vhost),
            f"nobody reads {LAUNCH}",
            "no launcher runs",
        )

    def test_rights_that_are_missing(
        self, sound: Installation, vhost: str, rabbitmq_server: RabbitMQ
    ) -> None:
        name, user = vhost.rpartition("/")[2], f"u{uuid4().hex}"
        rabbitmq_server.ctl(
            "eval",
            f'rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"pw">>, <<"tests">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{name}">>, '
            '<<"^none$">>, <<"^atemporal.internal$">>, <<"^atemporal.submit$">>, <<"tests">>).',
        )
        limited = _as(vhost, user, "pw")
        found = sound("broker.rights", broker_url=limited)
        blames(
            found, f"user {user}", f"read on {REAP}", "write on atemporal.events", "configure on"
        )
        assert f"read on {SUBMIT}" not in found.detail
        assert "write on atemporal.internal" not in found.detail
        blames(found, "set_permissions")
        without = sound("broker.rights", broker_url=limited, broker_declare=False)
        assert "configure on" not in without.detail
        assert sound("broker.topology", broker_url=limited).status is Status.UNCHECKED

    def test_a_binding_that_is_missing_and_a_policy_that_loses_messages(
        self, sound: Installation
    ) -> None:
        bindings = json.loads(_managed()[0].body)
        lost = [one for one in bindings if one["routing_key"] != "job.due"]
        policy = {"name": "short", "pattern": "^atemporal", "definition": {"message-ttl": 1}}
        answers = [Answer(200, json.dumps(one).encode()) for one in (lost, [policy], [])]
        with answering(*answers) as (url, asked):
            made = Instruments({}, management=url.replace("http://", "http://u:p@"))
            made.__dict__["settings"] = Settings(**sound.settings)
            found = sound("broker.bindings", made)
        blames(
            found, "sends no job.due", "atemporal broker declare", "policy short", "message-ttl"
        )
        assert asked[0].headers["authorization"] == "Basic dTpw"
        with answering(Answer(401)) as (url, asked):
            made = Instruments({}, management=url)
            made.__dict__["settings"] = Settings(**sound.settings)
            refused = sound("broker.bindings", made)
        blames(refused, "401", "monitoring", status=Status.UNCHECKED)
        assert asked[0].headers["authorization"] == "Basic Z3Vlc3Q6Z3Vlc3Q="

    def test_the_broker_of_atemporal_up_is_nobodys_to_see(
        self, sound: Installation, database_url: str
    ) -> None:
        assert sound("broker.reachable", broker_url="memory://").status is Status.UNCHECKED
        made = sound.instruments()
        unset = {name: value for name, value in sound.settings.items() if name != "broker_url"}
        with made:
            made.__dict__["settings"] = Settings(**unset)
            made.broker = away  # type: ignore[method-assign]
            with pytest.raises(Unavailable):
                BY_NAME["broker.reachable"].ask(made)
            up = Database(database_url, application="atemporal local")
            up.ping()
            found = BY_NAME["broker.reachable"].ask(made)
            up.dispose()
        blames(found, "atemporal up", status=Status.UNCHECKED)

    def test_without_the_management_api_bindings_are_not_called_ok(
        self, sound: Installation
    ) -> None:
        made = Instruments({})
        made.__dict__["settings"] = Settings(**sound.settings)
        blames(sound("broker.bindings", made), "--management", status=Status.UNCHECKED)


class TestCloud:
    @pytest.fixture
    def faults(self, sound: Installation) -> Iterator[Any]:
        yield sound.twin.faults
        sound.twin.faults.clear()

    @pytest.mark.parametrize(
        "action",
        [
            *("RunInstances", "TerminateInstances", "CreateTags", "GetConsoleOutput"),
            *("DescribeInstances", "DescribeImages", "DescribeInstanceTypes", "DescribeVolumes"),
            "DeleteVolume",
        ],
    )
    def test_a_right_that_is_missing(self, sound: Installation, faults: Any, action: str) -> None:
        with sound.instruments() as made:
            assert made.ec2.own is not None
            faults.add("unauthorized", call=action)
            check = BY_NAME[f"ec2.rights.{action}"]
            blames(check.ask(made), f"may not make {action}", f"ec2:{action}", "role")

    def test_a_refusal_of_what_is_not_there_proves_nothing(
        self, sound: Installation, faults: Any
    ) -> None:
        faults.add("unauthorized", call="TerminateInstances")
        found = sound("ec2.rights.TerminateInstances", deployment="another")
        blames(found, "ec2:TerminateInstances", "while a job runs", status=Status.UNCHECKED)

    def test_who_may_not_list_can_not_be_asked_about_an_instance(
        self, sound: Installation, faults: Any
    ) -> None:
        faults.add("unauthorized", call="*")
        found = sound("ec2.rights.TerminateInstances")
        blames(found, "ec2.rights.DescribeInstances", status=Status.UNCHECKED)
        assert "has none now" not in found.detail

    def test_images(self, sound: Installation, faults: Any) -> None:
        absent = sound("ec2.image", image_id="ami-0123456789abcdef0")
        blames(absent, "no image ami-0123456789abcdef0", "ATEMPORAL_IMAGE_ID")
        other = sound("ec2.image", image_id=image("ubuntu"))
        blames(other, "not known to be flatcar", "ATEMPORAL_TRUSTED_IMAGES")

    def test_a_wrong_architecture(self, sound: Installation) -> None:
        found = sound(
            "ec2.instance-type",
            instance_type="m7g.large",
            image_id=image("Flatcar-stable-4459.2.3-hvm"),
        )
        blames(found, "x86_64", "m7g.large is arm64", "ATEMPORAL_INSTANCE_TYPE")

    def test_a_type_that_there_is_not(self, sound: Installation) -> None:
        found = sound("ec2.instance-type", instance_type="t3.enormous")
        blames(found, "no instance type t3.enormous", "ATEMPORAL_INSTANCE_TYPE")

    @pytest.mark.parametrize(
        ("call", "code", "name", "words"),
        [
            ("DescribeSubnets", "InvalidSubnetID.NotFound", "ec2.subnets", (SUBNET, "_SUBNETS")),
            (
                "DescribeSecurityGroups",
                "InvalidGroup.NotFound",
                "ec2.security-groups",
                (GROUP, "_SECURITY_GROUPS"),
            ),
            ("DescribeKeyPairs", "InvalidKeyPair.NotFound", "ec2.key-pair", ("ours", "_KEY_NAME")),
            (
                "RunInstances",
                "InvalidParameterValue",
                "ec2.rights.RunInstances",
                ("refuses to launch", "_INSTANCE_PROFILE"),
            ),
        ],
    )
    def test_what_is_not_there(
        self, sound: Installation, faults: Any, call: str, code: str, name: str, words: Any
    ) -> None:
        faults.add("missing", call=call, code=code)
        blames(sound(name), *words)

    @pytest.mark.parametrize(
        ("kind", "status", "words"),
        [
            ("capacity", Status.WARNING, "would not launch a t3.small"),
            ("throttle", Status.UNCHECKED, "run doctor again"),
        ],
    )
    def test_what_ec2_will_not_do_now_is_no_missing_right(
        self, sound: Installation, faults: Any, kind: str, status: Status, words: str
    ) -> None:
        faults.add(kind, call="RunInstances")
        blames(sound("ec2.rights.RunInstances"), words, status=status)

    def test_who_may_not_look_says_so(self, sound: Installation, faults: Any) -> None:
        faults.add("unauthorized", call="DescribeSubnets")
        found = sound("ec2.subnets")
        blames(found, "ec2:DescribeSubnets", "doctor-policy.json", status=Status.UNCHECKED)

    def test_an_endpoint_that_is_not_there(self, sound: Installation) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        found = sound("ec2.reachable", ec2_endpoint_url=url)
        blames(found, "ATEMPORAL_EC2_ENDPOINT_URL")
        assert found.no_answer

    def test_credentials_that_ec2_does_not_take(self, sound: Installation, faults: Any) -> None:
        faults.add("unauthorized", call="*", code="AuthFailure")
        blames(sound("ec2.reachable"), "AuthFailure", "credentials")

    def test_it_asks_for_the_launch_that_the_launcher_makes(self, sound: Installation) -> None:
        settings = Settings(**sound.settings, tags={"team": "a"}, instance_profile="p")
        with sound.instruments(tags={"team": "a"}, instance_profile="p") as made:
            launcher = Launcher(settings, sound.database, made.ec2.cloud)
            ref, spec = AttemptRef(uuid4(), 1), parse_spec({"image": "busybox"})
            launch = launcher._intent(spec, {"x86_64": made.ec2.cloud.resolve_image()}, uuid4())
            real = made.ec2.cloud.request(ref, launch, b"")
            asked: list[dict[str, Any]] = []
            made.ec2.dry_run = lambda _action, **request: asked.append(request)  # type: ignore[method-assign]
            assert BY_NAME["ec2.rights.RunInstances"].ask(made).status is Status.OK
        own = ("ClientToken", "UserData", "TagSpecifications")
        assert {k: v for k, v in asked[0].items() if k not in own} == {
            k: v for k, v in real.items() if k not in own
        }
        keys = [
            [tag["Key"] for tag in one["Tags"]]
            for request in (asked[0], real)
            for one in request["TagSpecifications"]
        ]
        assert all(one == keys[0] for one in keys)


class TestTheRest:
    @pytest.mark.parametrize(("off_s", "which"), [(3600.0, "ahead of"), (-3600.0, "behind")])
    def test_a_clock_that_is_wrong(self, sound: Installation, off_s: float, which: str) -> None:
        made = sound.instruments()
        made.now = lambda: time() + off_s
        with made:
            for name, whose in (("clock.database", "Postgres"), ("clock.ec2", "EC2")):
                blames(BY_NAME[name].ask(made), f"{which} that of {whose}", "NTP")

    def test_zone_rules_that_are_old(self, sound: Installation, tmp_path: Path) -> None:
        made = sound.instruments()
        made.rules = lambda: "2019.3"
        blames(sound("zones.rules", made), "2019.3", "pip install --upgrade tzdata")
        newer = sound.instruments()
        newer.system_zones = tmp_path / "tzdata.zi"
        newer.system_zones.write_text("# version 2099c\n")
        blames(sound("zones.rules", newer), "newer (2099c)", "tzdata", status=Status.WARNING)

    def test_nobody_at_the_callback_address(self, sound: Installation) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        blames(sound("callback.answers", callback_url=url), url, "start the API")

    def test_somebody_else_at_the_callback_address(self, sound: Installation) -> None:
        with answering(Answer(200, b"<html>"), Answer(404)) as (url, _):
            for why in ("no JSON", "404"):
                blames(sound("callback.answers", callback_url=url), why, "ATEMPORAL_CALLBACK_URL")

    def test_a_callback_address_that_no_machine_reaches(self, sound: Installation) -> None:
        aws = {"ec2_endpoint_url": None}
        found = sound("callback.address", callback_url="http://127.0.0.1:8080", **aws)
        blames(found, "loopback", "ATEMPORAL_CALLBACK_URL")
        found = sound("callback.address", callback_url="http://10.1.2.3", **aws)
        blames(found, "private", "ATEMPORAL_SUBNETS", status=Status.WARNING)

    def test_a_daemon_that_fails_or_is_away(self, sound: Installation) -> None:
        loops = {
            "sweep": {"last_tick_age_s": 1.0, "last_tick_ok": False, "error": "no database"},
            "audit": {"last_tick_age_s": 1.0, "last_tick_ok": True},
        }
        body = json.dumps({"ok": False, "loops": loops}).encode()
        stuck = body.replace(b'"last_tick_age_s": 1.0', b'"last_tick_age_s": 4000.0')
        with answering(Answer(503, body), Answer(200, stuck)) as (url, _):
            for words in (("sweep: no database",), ("sweep for 4000 s", "restart")):
                made = Instruments({}, health=[url])
                made.__dict__["settings"] = Settings(**sound.settings)
                blames(sound("daemons.loops", made), url, *words)


def away() -> Any:
    """A broker that does not answer."""
    raise Unavailable("RabbitMQ is away", Service.RABBITMQ)


def _as(url: str, user: str, password: str) -> str:
    """The URL with another user."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{password}@{rest.rpartition('@')[2]}"
