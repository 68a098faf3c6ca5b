"""What every tier of the tests stands on: a clean environment, and the servers.

A server starts when the first test asks for it, once a session; a test's own, empty corner of it (a
database, a virtual host) comes with `database_url` and `broker_url`, one a test module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings as hypothesis_settings

from atemporal import migrations
from atemporal.store.database import Database
from tests.servers.postgres import Postgres, open_postgres
from tests.servers.rabbitmq import RabbitMQ, open_rabbitmq

_GIVEN = "ATEMPORAL_TEST_"


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


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    """This module's database, with all tables."""
    migrations.upgrade(database_url)
    database = Database(database_url)
    yield database
    database.dispose()
