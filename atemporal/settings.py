"""Every setting of every process, from `ATEMPORAL_*` environment variables.

Promise: one list for daemons and CLI alike; a wrong value is refused at start with the variable's
name, and a variable of our prefix that is none of them is told; secrets are `SecretStr`, so that
neither a log line nor a traceback shows them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode, SettingsConfigDict

from atemporal import tags as tag_rules
from atemporal.api_url import DEFAULT_URL
from atemporal.errors import Invalid
from atemporal.model import container, describe, forms
from atemporal.model.job_spec import LONGEST_LEAD_S, MOST_LABELS
from atemporal.rate_settings import RateSettings
from atemporal.userdata import OS_FAMILIES
from atemporal.waiting import Phase
from atemporal.webhook.address import Network, networks

PREFIX = "ATEMPORAL_"


def _words(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]

MOST_TAGS = tag_rules.MOST - tag_rules.OURS - MOST_LABELS
"""So many tags of the deployment leave room for each label that a job may have, and for ours."""

Tags = Annotated[dict[str, str], NoDecode, BeforeValidator(tag_rules.parse)]


class Settings(RateSettings):
    """The effective settings of this process; `atemporal config` prints them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    deployment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")] = Field(
        default="default",
        description="this installation's name: the tag of its instances; no others are touched",
    )
    database_url: SecretStr = Field(
        default=SecretStr("postgresql://atemporal:atemporal@localhost/atemporal"),
        description="the database: postgresql://USER:PASSWORD@HOST:PORT/NAME",
    )
    broker_url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@localhost:5672//"),
        description="RabbitMQ: amqp://USER:PASSWORD@HOST:PORT/VHOST",
    )
    broker_declare: bool = Field(
        default=True,
        description="make exchanges and queues on connecting; off where daemons may not configure",
    )
    callback_url: str = Field(
        default="http://127.0.0.1:8080",
        description="where machines reach the API: the base of every callback",
    )
    callback_keys: SecretStr = Field(
        default=SecretStr(""),
        description="kid:secret pairs, comma separated; the first signs, all are accepted",
    )
    api_url: str = Field(default=DEFAULT_URL, description="where the command line finds the API")
    api_token: SecretStr = Field(
        default=SecretStr(""), description="what the command line shows to the API"
    )
    api_host: str = Field(
        default="127.0.0.1",
        description="the address on which the API listens; beyond loopback it wants API tokens",
    )
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8080,
        description="the port on which the API listens; 0: any that is free",
    )
    api_open: bool = Field(
        default=False, description="serve without API tokens on any address, not only loopback"
    )
    api_notice: Annotated[str, Field(max_length=300, pattern="^[ -~]*$")] = Field(
        default="",
        description="a sentence for whoever asks the API about jobs; the command line repeats it",
    )
    health_host: str = Field(
        default="127.0.0.1",
        description="the address of /healthz, /readyz and /metrics of a daemon",
    )
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0, description="/healthz, /readyz, /metrics; 0: a port of the daemon's own choice"
    )
    log_format: Annotated[str, Field(pattern="^(auto|json|console)$")] = Field(
        default="auto",
        description="auto: for people on a terminal, else json",
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        default="info",
        description="the least severe lines that are written",
    )

    region: str = Field(
        default="us-east-1",
        description="the AWS region of the instances",
    )
    ec2_endpoint_url: str | None = Field(
        default=None,
        description="where EC2 is asked; absent: AWS itself; the twin's address for a local EC2",
    )
    events_queue_url: str | None = Field(
        default=None,
        description="an SQS queue that gets EC2's events by EventBridge; absent: sweeps alone",
    )
    os_family: str = Field(
        default="flatcar", description=f"what new machines boot: {', '.join(sorted(OS_FAMILIES))}"
    )
    image_id: str | None = Field(
        default=None, description="an AMI's id; absent: the OS family's newest one is looked up"
    )
    trusted_images: Words = Field(
        default=(),
        description="ids of AMIs that are of the OS family, though EC2 lists them under another "
        "owner or name: your own copies",
    )
    instance_type: str = Field(
        default="t3.small",
        description="the type of jobs that name none",
    )
    subnets: Words = Field(
        default=(),
        description="the subnets of jobs that name none, tried in this order; absent: EC2's default",
    )
    security_groups: Words = Field(
        default=(),
        description="the security groups of new instances, comma separated",
    )
    job_options: Annotated[Words, AfterValidator(container.known_options)] = Field(
        default=container.JOB_OPTIONS,
        description="the options of docker's that jobs may use; network=host can be added, which lets "
        "a container do what its machine may",
    )
    host_paths: Annotated[Words, AfterValidator(container.paths)] = Field(
        default=(),
        description="directories of the machine that jobs may have as volumes, with all below them",
    )
    registries_file: str | None = Field(
        default=None,
        description="what opens private registries, as `docker login` writes it (config.json)",
    )
    key_name: str | None = Field(
        default=None,
        description="the EC2 key pair of new instances, for SSH; absent: none",
    )
    instance_profile: str | None = Field(
        default=None,
        description="the IAM instance profile of new instances, by name; absent: none",
    )

    prices_file: str | None = Field(
        default=None,
        description="a price table (CSV), for what jobs cost and for max_cost; absent: no costs",
    )
    costs_kept_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        default=800.0,
        description="how many days the sums of what closed attempts cost are kept, jobs or no jobs",
    )
    tags: Tags = Field(
        default={},
        description="tags of all new instances and their volumes, as KEY=VALUE, comma separated; "
        f"{MOST_TAGS} at most",
    )
    label_tags: Words = Field(
        default=(tag_rules.EVERY,),
        description="the labels of a job that become tags of its instance and volumes, by name; "
        f"{tag_rules.EVERY}: every one; {tag_rules.NONE}: none",
    )

    poll_interval_s: Annotated[float, Field(gt=0, le=60)] = Field(
        default=1.0,
        description="how often a scheduler looks for due jobs when nothing notifies it",
    )
    schedule_messages: bool = Field(
        default=True,
        description="whether who may publish may make and change recurring schedules by messages; else "
        "such messages go to the dead letters",
    )
    sweep_interval_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=10.0,
        description="how often each daemon looks in the tables for work that no message named",
    )
    stale_after_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=30.0,
        description="how long a sweep leaves work to the message before it does it itself",
    )
    queue_deadline_s: Annotated[int, Field(ge=10)] = Field(
        default=86_400, description="due to the begin of an attempt, then the job fails"
    )
    launch_deadline_s: Annotated[int, Field(ge=10)] = Field(
        default=3600, description="begin of an attempt to its instance"
    )
    boot_deadline_s: Annotated[int, Field(ge=10)] = Field(
        default=900,
        description="instance to the machine's boot callback, at most; less where boots are known",
    )
    pull_deadline_s: Annotated[int, Field(ge=10)] = Field(
        default=1800, description="the machine's boot callback to its claim"
    )
    lead_limit_s: Annotated[int, Field(ge=0, le=LONGEST_LEAD_S)] = Field(
        default=LONGEST_LEAD_S,
        description="the longest lead that is learned from recent machines; one that waits is paid for",
    )
    hold_limit_s: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=900,
        description="how long after its launch a machine may still hold its container for a time; it "
        "is part of the machine's own deadline, and no lead is learned that is longer",
    )
    machine_slack_s: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=1800,
        description="what a machine may take beyond boot, pull and run: stopping and reporting; "
        "then it powers itself off",
    )
    stop_deadline_s: Annotated[int, Field(ge=10)] = Field(
        default=300,
        description="end of an attempt to the end of its instance, then it is reported",
    )
    cloud_grace_s: Annotated[float, Field(ge=0)] = Field(
        default=300.0,
        description="how old an instance or intent must be before its absence proves anything",
    )
    launch_group_size: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="how many instances of one shape one call of RunInstances asks for at most; 1: "
        "each attempt has a call of its own; absent: 200 where a certificate for the instance "
        "identity documents is known or none is needed, else 1",
    )
    instance_identity: Literal["required", "off"] = Field(
        default="required",
        description="whether a machine of a launch group, or of a job by claim, must prove by EC2's "
        "signed document which instance it is, before it is told its job; off: it is believed",
    )
    identity_certificates: str | None = Field(
        default=None,
        description="a PEM file with the certificates of these documents; absent: AWS's own, of "
        "some Regions",
    )
    aws_account_id: Annotated[str, Field(pattern=r"^[0-9]{12}$")] | None = Field(
        default=None,
        description="the AWS account whose instances these documents must name; absent: any",
    )
    capacity_cooldown_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=180.0,
        description="how long an offering that had no capacity is not asked again",
    )
    quota_cooldown_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=60.0,
        description="how long a type is not asked again when the account's quota is full",
    )
    spot_interruptions: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, description="so many within spot_window_s, and a spot pool is left alone"
    )
    spot_window_s: Annotated[float, Field(gt=0)] = Field(
        default=900.0,
        description="the time within which interruptions of a spot pool are counted",
    )
    spot_pause_s: Annotated[float, Field(ge=0)] = Field(
        default=1800.0, description="how long a spot pool that interrupts is left alone"
    )
    retention: Annotated[float, Field(ge=0, le=36_500)] = Field(
        default=90.0,
        description="how many days a finished job is kept, with its key, its attempts and its history; "
        "0: for ever",
    )
    log_kept_bytes: Annotated[int, Field(ge=0, le=16 * 1024 * 1024)] = Field(
        default=256 * 1024,
        description="how much of what a container writes is kept while it runs, the latest, beside the "
        "end of it that its machine reports; 0: nothing, and machines send nothing",
    )
    log_kept_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        default=7.0, description="how many days that is kept, if its job is not deleted before"
    )
    webhook_networks: Words = Field(
        default=(),
        description="networks beyond the public internet to which webhooks may be sent, like "
        "10.20.0.0/16; absent: none",
    )
    webhook_http: bool = Field(
        default=False, description="let webhooks be sent without TLS too, to http:// addresses"
    )
    stop_within_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=25.0,
        description="how long a daemon may take to stop in order after SIGTERM",
    )

    @field_validator("callback_url")
    @classmethod
    def _url_has_a_scheme(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s'\"\\$`]{1,400}", url):
            raise ValueError("write a base URL such as https://atemporal.example.com")
        return url.rstrip("/")

    @field_validator("callback_keys")
    @classmethod
    def _keys_are_pairs(cls, keys: SecretStr) -> SecretStr:
        _parse_keys(keys.get_secret_value())
        return keys

    @field_validator("os_family")
    @classmethod
    def _os_family_is_known(cls, name: str) -> str:
        if name not in OS_FAMILIES:
            raise ValueError(f"{name!r} is unknown; known are: {', '.join(sorted(OS_FAMILIES))}")
        return name

    @field_validator("tags")
    @classmethod
    def _tags_are_tags(cls, tags: dict[str, str]) -> dict[str, str]:
        tag_rules.check_all(tags, most=MOST_TAGS)
        return dict(sorted(tags.items()))

    @field_validator("label_tags")
    @classmethod
    def _label_tags_are_labels(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) == 1 and names[0] in (tag_rules.EVERY, tag_rules.NONE):
            return names
        for name in names:
            if not forms.LABEL.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a label; write names, or {tag_rules.EVERY} or "
                    f"{tag_rules.NONE} alone"
                )
        return tuple(sorted(set(names)))

    @field_validator("webhook_networks")
    @classmethod
    def _networks_are_some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        networks(names)
        return names

    @property
    def networks_of_webhooks(self) -> tuple[Network, ...]:
        """Where webhooks may be sent to beside the public internet."""
        return networks(self.webhook_networks)

    @property
    def deadlines(self) -> dict[Phase, float]:
        """The seconds that each phase of a job's way may take, where that is a setting."""
        return {
            Phase.QUEUED: self.queue_deadline_s,
            Phase.LAUNCH: self.launch_deadline_s,
            Phase.BOOT: self.boot_deadline_s,
            Phase.PULL: self.pull_deadline_s,
            Phase.STOP: self.stop_deadline_s,
        }

    @property
    def keys(self) -> dict[str, bytes]:
        """The live callback keys by id, in order.

        Raises:
            Invalid: none is set; without one no machine could prove which attempt it is.
        """
        keys = _parse_keys(self.callback_keys.get_secret_value())
        if not keys:
            raise Invalid(
                {f"{PREFIX}CALLBACK_KEYS": "not set; write one as k1:$(openssl rand -hex 32)"}
            )
        return keys

    @property
    def signing_key_id(self) -> str:
        """The id of the key that new tokens are made with."""
        return next(iter(self.keys))


def _parse_keys(text: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        kid, colon, secret = pair.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_-]{1,16}", kid) or len(secret) < 16:
            raise ValueError("write kid:secret pairs, a secret has at least 16 characters")
        keys[kid] = secret.encode()
    return keys


def fields() -> list[tuple[str, FieldInfo]]:
    """All settings in the order in which people read of them: EC2's limits last."""
    return sorted(
        Settings.model_fields.items(), key=lambda one: one[0] in RateSettings.model_fields
    )


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` win.

    Raises:
        Invalid: with each bad variable's name and why.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = {f"{PREFIX}{name.upper()}": why for name, why in describe(error).items()}
        raise Invalid(wrong) from None
