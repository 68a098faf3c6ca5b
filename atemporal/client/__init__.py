"""A client of the HTTP API: submit jobs, look at them, cancel them.

Promise: every failure is one of `atemporal.errors`, with the API's own sentence; a submit of which
nobody knows whether it arrived is `Unknown`, never a plain failure. Jobs are as the API sends them:
dictionaries of the shapes in `shapes`.
Mechanism: the standard library's HTTP, which takes the machine's certificates and the proxies of its
environment; it is imported in a moment, which a command line and its completion live by. A redirect is
not followed: the token is for the API alone.

    client = Client("https://atemporal.example.com", "atp_...")
    job, created = client.submit({"image": "busybox", "command": ["true"]}, key="nightly-7")
"""

from atemporal.api_url import DEFAULT_URL
from atemporal.client.client import BATCH, BATCH_BYTES, PAGE, Client
from atemporal.client.logs import LogOutput
from atemporal.client.pauses import Pause, PauseBegun
from atemporal.client.shapes import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterPage,
    Event,
    EventPage,
    FailedDelivery,
    FailedPage,
    InPhase,
    Instance,
    InstanceDetail,
    Job,
    JobDetail,
    JobPage,
    LifecycleEvent,
    Limit,
    LimitChange,
    LineResult,
    LogPage,
    Overview,
    Schedule,
    ScheduleDetail,
    SchedulePage,
    Webhook,
    WebhookPage,
    WebhookTest,
)

__all__ = [
    "BATCH",
    "BATCH_BYTES",
    "DEFAULT_URL",
    "PAGE",
    "Client",
    "DeadLetter",
    "DeadLetterDetail",
    "DeadLetterPage",
    "Event",
    "EventPage",
    "FailedDelivery",
    "FailedPage",
    "InPhase",
    "Instance",
    "InstanceDetail",
    "Job",
    "JobDetail",
    "JobPage",
    "LifecycleEvent",
    "Limit",
    "LimitChange",
    "LineResult",
    "LogOutput",
    "LogPage",
    "Overview",
    "Pause",
    "PauseBegun",
    "Schedule",
    "ScheduleDetail",
    "SchedulePage",
    "Webhook",
    "WebhookPage",
    "WebhookTest",
]
