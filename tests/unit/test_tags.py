"""Which tags instances and volumes may have beside our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal import tags
from atemporal.cloud import Cloud, launch_request
from atemporal.cloud.caller import Caller
from atemporal.cloud.instance import (
    ATTEMPT_TAG,
    DEPLOYMENT_TAG,
    GROUP_TAG,
    INSTALLATION_TAG,
    JOB_TAG,
    tags_of,
    tags_of_group,
)
from atemporal.cloud.service_model import OPERATIONS
from atemporal.cloud.tagging import Taggings
from atemporal.errors import Invalid
from atemporal.limits import Unlimited
from atemporal.model import AttemptRef, JobSpec, Launch, parse_spec, read_spec
from atemporal.model.job_spec import MOST_LABELS
from atemporal.model.schedule import LABEL
from atemporal.settings import MOST_TAGS, load

POLICY = Path(__file__).parents[2] / "deploy/aws/launcher-policy.json"
ASTRAL = "\N{MATHEMATICAL BOLD CAPITAL A}"


def launch(**more: Any) -> Launch:
    return Launch(
        image_id="ami-1",
        instance_type="t3.small",
        callback_base="http://127.0.0.1:9",
        key_id="k1",
        deadline_s=600,
        **more,
    )


def job(**labels: str) -> JobSpec:
    return parse_spec({"image": "a", "labels": labels})


class TestWhatATagMayBe:
    @pytest.mark.parametrize(
        "key", ["k", "k" * 127, "cost center", "a:b/c=d+e-f._@", "Größe", "0"]
    )
    def test_a_key_that_every_service_takes(self, key: str) -> None:
        tags.check_key(key)

    @pytest.mark.parametrize(
        "key",
        [
            *("", "k" * 129, ASTRAL * 65, "a,b", "a*", "tab\t", "€", "a\N{GRINNING FACE}"),
            *("aws:x", "AWS:x", "aWs:", "atemporal:job", "Atemporal:x", "Name"),
        ],
    )
    def test_a_key_that_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match="tag key"):
            tags.check_key(key)

    @pytest.mark.parametrize("value", ["", "v" * 256, ASTRAL * 128, "a b", "aws:x", "Ä٣\u00a0"])
    def test_a_value_that_every_service_takes(self, value: str) -> None:
        tags.check_value(value)

    @pytest.mark.parametrize("value", ["v" * 257, ASTRAL * 129, "100%", "a,b", '"', "\n", "\0"])
    def test_a_value_that_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"holds|longer"):
            tags.check_value(value)


class TestLabels:
    @pytest.mark.parametrize("value", ["a,b", "100%", "{}", "\N{GRINNING FACE}", ASTRAL * 129])
    def test_what_can_be_no_tag_is_no_label(self, value: str) -> None:
        with pytest.raises(Invalid) as refused:
            job(x=value)
        assert "the value of label 'x'" in refused.value.fields["labels"]

    @pytest.mark.parametrize("name", ["aws:x", "AWS:x", "atemporal:job"])
    def test_a_name_of_awss_or_ours_is_no_label(self, name: str) -> None:
        with pytest.raises(Invalid):
            parse_spec({"image": "a", "labels": {name: "x"}})

    @given(
        st.dictionaries(
            st.from_regex(r"\A[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?\Z"),
            st.text(max_size=255),
            max_size=MOST_LABELS,
        )
    )
    def test_every_label_that_is_taken_becomes_a_tag_but_name(
        self, labels: dict[str, str]
    ) -> None:
        try:
            spec = parse_spec({"image": "a", "labels": labels})
        except Invalid:
            return
        made = launch(tags={}, label_tags=("*",)).tags_of(spec.labels)
        assert made == ({k: v for k, v in labels.items() if k != "Name"}, ())

    def test_ours_and_the_deployments_are_never_overwritten(self) -> None:
        given = launch(tags={"team": "platform"}, label_tags=("*",))
        labels = {"Name": "mine", "Team": "x", "team": "y", "teams": "z"}
        assert given.tags_of(labels) == ({"teams": "z"}, ())

    @pytest.mark.parametrize(
        ("chosen", "kept"),
        [(("*",), {"a", "b", LABEL}), (("-",), set()), (("a", "c"), {"a"}), ((), set())],
    )
    def test_which_labels_become_tags_is_a_setting(
        self, chosen: tuple[str, ...], kept: set[str]
    ) -> None:
        made = launch(tags={}, label_tags=chosen).tags_of({"a": "1", "b": "2", LABEL: "n"})
        assert set(made.tags) == kept

    def test_labels_of_older_releases_that_aws_would_refuse_are_left_out(self) -> None:
        old = read_spec({"image": "a", "labels": {"a": "1", "b": "x,y", "c": "v" * 300}}, None)
        made = launch(tags={}, label_tags=("*",)).tags_of(old.labels)
        assert made == ({"a": "1"}, ("b", "c"))

    def test_more_labels_than_there_is_room_for_are_left_out(self) -> None:
        labels = {f"l{number:02}": "" for number in range(60)}
        deployment = {f"d{number}": "" for number in range(MOST_TAGS)}
        made = launch(tags=deployment, label_tags=("*",)).tags_of(labels)
        assert len(made.tags) + len(deployment) + tags.OURS == tags.MOST
        assert len(made.left_out) == 60 - MOST_LABELS

    def test_launches_of_older_releases_have_our_own_tags_alone(self) -> None:
        stored = launch().model_dump(mode="json", exclude={"tags", "label_tags"})
        old = Launch.model_validate(stored)
        assert old.labelled({"a": "1"}) is old
        request = launch_request.build("t", {"Name": "n"}, 1, old, b"", image=None)
        assert request["TagSpecifications"][0]["Tags"] == [{"Key": "Name", "Value": "n"}]
        assert "InstanceMetadataTags" not in request["MetadataOptions"]


class TestTheRequest:
    def test_our_own_tags_are_as_many_as_are_counted(self) -> None:
        ref = AttemptRef(uuid4(), 1)
        ours = {*tags_of("d", ref), *tags_of_group("d", uuid4()), INSTALLATION_TAG}
        assert len(ours) == tags.OURS
        assert all(key == tags.NAME or key.startswith(tags.OWN_PREFIX) for key in ours)

    def test_it_is_the_same_whatever_order_the_database_gives(self) -> None:
        one, other = (
            launch(tags=dict(pairs)).labelled({})
            for pairs in ([("a", "1"), ("bb", "2")], [("bb", "2"), ("a", "1")])
        )
        builds = [
            repr(launch_request.build("t", {"Name": "n"}, 1, each, b"", image=None))
            for each in (one, other)
        ]
        assert builds[0] == builds[1]

    def test_instance_and_volume_have_the_same_tags_and_the_machine_can_not_read_them(
        self,
    ) -> None:
        given = launch(tags={"team": "x"}, label_tags=("*",)).labelled({LABEL: "n"})
        request = launch_request.build("t", {"Name": "n"}, 1, given, b"", image=None)
        instance, volume = request["TagSpecifications"]
        assert (instance["ResourceType"], volume["ResourceType"]) == ("instance", "volume")
        assert instance["Tags"] == volume["Tags"]
        assert {one["Key"] for one in instance["Tags"]} == {"team", LABEL, "Name"}
        assert request["MetadataOptions"]["InstanceMetadataTags"] == "disabled"


class TestTheSettings:
    def test_tags_are_pairs(self) -> None:
        text = " team=platform, cost-center=42 ,note=a = b,empty=,"
        assert load(tags=text).tags == {
            "cost-center": "42",
            "empty": "",
            "note": "a = b",
            "team": "platform",
        }
        assert load().tags == {}

    def test_they_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATEMPORAL_TAGS", "team=a b")
        monkeypatch.setenv("ATEMPORAL_LABEL_TAGS", "team, project")
        assert load().tags == {"team": "a b"}
        assert load().label_tags == ("project", "team")

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("team", "is not KEY=VALUE"),
            ("=x", "is no tag key"),
            ("a=1,a=2", "there twice"),
            ("a=1,A=2", "one key to IAM"),
            ("aws:x=1", "not free"),
            ("Atemporal:job=1", "not free"),
            ("Name=x", "not free"),
            ("a=100%", "the value of tag 'a' holds '%'"),
            ("a=" + "v" * 257, "longer than 256"),
            (",".join(f"k{n}=" for n in range(MOST_TAGS + 1)), "too many"),
        ],
    )
    def test_a_bad_one_is_refused_at_the_start(self, text: str, why: str) -> None:
        with pytest.raises(Invalid) as refused:
            load(tags=text)
        assert why in refused.value.fields["ATEMPORAL_TAGS"]

    @pytest.mark.parametrize("text", ["*,a", "-,a", "a b!", "aws:x"])
    def test_a_bad_list_of_labels_is_refused(self, text: str) -> None:
        with pytest.raises(Invalid) as refused:
            load(label_tags=text)
        assert "write names" in refused.value.fields["ATEMPORAL_LABEL_TAGS"]

    @pytest.mark.parametrize(("text", "chosen"), [("*", ("*",)), ("-", ("-",))])
    def test_all_labels_or_none(self, text: str, chosen: tuple[str, ...]) -> None:
        assert load(label_tags=text).label_tags == chosen


class TestThePolicy:
    """`deploy/aws/launcher-policy.json` allows the calls of the launcher, and no more of their tags."""

    STATEMENTS: ClassVar = {one["Sid"]: one for one in json.loads(POLICY.read_text())["Statement"]}

    def test_it_allows_what_a_launcher_calls(self) -> None:
        actions = {
            action
            for one in self.STATEMENTS.values()
            for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
        }
        theirs = {"TerminateInstances", "DeleteVolume", "GetConsoleOutput"}  # the reaper's
        assert actions == {f"ec2:{name}" for name in set(OPERATIONS) - theirs}
        assert all(one["Effect"] == "Allow" for one in self.STATEMENTS.values())

    def test_it_launches_with_the_deployments_tag_alone(self) -> None:
        condition = self.STATEMENTS["LaunchWithTheDeploymentsTag"]["Condition"]
        assert condition == {"StringEquals": {f"aws:RequestTag/{DEPLOYMENT_TAG}": "DEPLOYMENT"}}

    def test_whose_an_instance_is_can_not_be_changed_later(self) -> None:
        condition = self.STATEMENTS["TagWhatAGroupHasLaunched"]["Condition"]
        (kept,) = condition["ForAllValues:StringNotEqualsIgnoreCase"].values()
        assert set(kept) == {DEPLOYMENT_TAG, INSTALLATION_TAG, GROUP_TAG}
        assert condition["StringEquals"] == {f"aws:ResourceTag/{DEPLOYMENT_TAG}": "DEPLOYMENT"}

    def test_what_is_tagged_later_has_none_of_these_keys(self) -> None:
        """Else the policy would refuse our own call."""
        client = MagicMock()
        with Cloud(load(region="us-east-1")) as cloud:
            cloud._taggings = Taggings(client, Caller(Unlimited()))
            cloud.tag(["i-1"], {"team": "x"}, AttemptRef(uuid4(), 1))
        (call,) = client.create_tags.call_args_list
        keys = {one["Key"] for one in call.kwargs["Tags"]}
        assert keys == {"team", "Name", JOB_TAG, ATTEMPT_TAG}
