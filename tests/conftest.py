"""What every tier of the tests stands on: a clean environment, and the servers.

A server starts when the first test asks for it, once a session, in each worker of a parallel run its
own; a test's own, empty corner of it (a database, a virtual host) comes with `database_url` and
`broker_url`, one a test module.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings as hypothesis_settings
from kombu.transport import memory
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal import migrations
from atemporal.event_types import EVENT_TYPES
from atemporal.metrics import FAMILIES
from atemporal.store.database import Database
from tests.api import Api, serving
from tests.integration.command_line import Cli
from tests.servers.postgres import Postgres, open_postgres
from tests.servers.rabbitmq import RabbitMQ, open_rabbitmq

_GIVEN = "ATEMPORAL_TEST_"
_REMARK = "remark"


def pytest_configure() -> None:
    """Keep this machine's own settings and AWS account out of the tests and their processes."""
    for name in [n for n in os.environ if n.startswith(("ATEMPORAL_", "AWS_"))]:
        if not name.startswith(_GIVEN) and name != "AWS_CA_BUNDLE":
            del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
    )
    # An example that takes long on a busy machine is no failure of the code under test.
    hypothesis_settings.register_profile("atemporal", deadline=None)
    hypothesis_settings.load_profile("atemporal")


def pytest_collection_finish() -> None:
    """Keep what was imported out of the garbage collector's way: it took a third of the time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests remarked: how much was tried, under which seed."""
    remarks = [
        str(text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == _REMARK
    ]
    if remarks:
        terminalreporter.section("remarks")
        terminalreporter.write_line("\n".join(remarks))


@pytest.fixture
def remark(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Show a text in the run's summary, also from a worker, whose output nobody sees."""
    return lambda text: record_property(_REMARK, text)


@pytest.fixture(autouse=True, scope="module")
def every_series_is_declared() -> Iterator[None]:
    """Fail when something was counted under a label's value that its metric does not declare."""
    yield
    undeclared = {
        f"{family.name}: {label}={value}"
        for family in REGISTRY.collect()
        for sample in family.samples
        for label, value in sample.labels.items()
        # Loops are declared by what runs them, and a test may do that itself.
        if sample.name in FAMILIES and label != "loop"
        if value not in FAMILIES[sample.name].labels[label]
    }
    assert not undeclared, "declare it where the metric is declared"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The session's Postgres; who stops it starts it again before the test ends."""
    server = open_postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """The session's RabbitMQ; who stops it starts it again before the test ends."""
    server = open_rabbitmq()
    yield server
    server.close()


@pytest.fixture(scope="module")
def database_url(postgres_server: Postgres) -> str:
    """An empty database of this module's own."""
    return postgres_server.create_database()


@pytest.fixture(scope="module")
def broker_url(rabbitmq_server: RabbitMQ) -> str:
    """An empty virtual host of this module's own."""
    return rabbitmq_server.create_vhost()


@pytest.fixture
def memory_url() -> str:
    """The broker within this process, emptied: other tests may have left messages there."""
    for queue in memory.Channel.queues.values():
        with queue.mutex:
            queue.queue.clear()
    return "memory://"


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    """This module's database, with all tables, which takes events of the listed types only."""
    migrations.upgrade(database_url)
    database = Database(database_url)
    with database.begin() as tx:
        listed = ", ".join(f"'{name}'" for name in EVENT_TYPES)
        tx.execute(text(f"ALTER TABLE events ADD CONSTRAINT is_listed CHECK (type IN ({listed}))"))
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def api(database_url: str) -> Iterator[Api]:
    """The HTTP API on this module's database, with settings of its own."""
    with serving(database_url) as served:
        yield served


@pytest.fixture
def cli(database_url: str, api: Api) -> Cli:
    """The command line, beside that API and its database."""
    return Cli(database_url, str(api.http.base_url))
