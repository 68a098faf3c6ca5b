"""`Unavailable` names the service that does not answer, so that nobody reads its text for that."""

from __future__ import annotations

import pytest
from botocore.exceptions import EndpointConnectionError

from atemporal.broker import Link
from atemporal.cloud.faults import classify
from atemporal.errors import Kept, Service, Unavailable
from atemporal.inbox import Inbox
from atemporal.store.database import Database

NOWHERE = "postgresql://nobody:hush@127.0.0.1:1/nothing"


def test_a_database_that_does_not_answer_is_postgres() -> None:
    database = Database(NOWHERE)
    with pytest.raises(Unavailable) as failure:
        database.ping()
    assert failure.value.service is Service.POSTGRES
    with pytest.raises(Unavailable) as failure:
        database.listen()
    assert failure.value.service is Service.POSTGRES
    database.dispose()


@pytest.mark.parametrize("service", [Service.EC2, Service.SQS])
def test_a_cloud_call_that_gets_no_answer_names_its_service(service: Service) -> None:
    error = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    failure = classify(error, "reading", reading=True, service=service)
    assert isinstance(failure, Unavailable)
    assert failure.service is service


def test_an_inbox_that_keeps_its_messages_passes_the_service_on(memory_url: str) -> None:
    link = Link(memory_url, name="test")
    link.connect()
    inbox = Inbox(link, "atemporal.launch", ping=lambda: None)
    with pytest.raises(Kept) as failure, inbox.tick():
        raise Unavailable("Postgres is away", Service.POSTGRES)
    assert failure.value.service is Service.POSTGRES
    link.close()


def test_unavailable_without_a_service_names_none() -> None:
    assert Unavailable("the database is at an older step").service is None
