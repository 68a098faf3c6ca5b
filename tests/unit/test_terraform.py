"""The Terraform files: nothing is wrong with them by the providers' schemas, and they keep promises.

The check itself is tried with a fault of each kind.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from atemporal.cloud.instance import DEPLOYMENT_TAG
from atemporal.errors import Invalid
from atemporal.settings import PREFIX, Settings
from cloud_config.flatcar import FLATCAR
from deploy.production.rollout import ORDER
from deploy.terraform import check, summary
from deploy.terraform.configuration import Block, Configuration, chains, plain

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "terraform"
SCHEMAS = check.schemas()
GOOD = """
variable "name" { type = string }
locals { zone = "a" }
resource "aws_vpc" "this" {
  cidr_block = "10.0.0.0/16"
  tags       = { Name = var.name }
}
resource "aws_subnet" "this" {
  count             = 2
  vpc_id            = aws_vpc.this.id
  availability_zone = "${local.zone}${count.index}"
}
resource "aws_mq_broker" "this" {
  broker_name        = "b"
  engine_type        = "RabbitMQ"
  engine_version     = "4.2"
  host_instance_type = "mq.m7g.medium"
  subnet_ids         = aws_subnet.this[*].id
  user {
    username = "u"
    password = "p"
  }
  lifecycle { ignore_changes = [user] }
}
output "subnets" { value = [for one in aws_subnet.this : one.id] }
"""


def faults(text: str) -> list[str]:
    configuration = Configuration()
    configuration.add(text, name="test.tf")
    return check.faults(configuration, SCHEMAS)


@pytest.fixture(scope="module")
def ours() -> Configuration:
    return Configuration.read(FOLDER)


def body(configuration: Configuration, address: str) -> Block:
    return next(one.body for one in configuration.resources if one.address == address)


class TestTheCheck:
    def test_finds_nothing_in_what_is_good(self) -> None:
        assert faults(GOOD) == []

    @pytest.mark.parametrize(
        ("old", "new", "found"),
        [
            ('resource "aws_vpc"', 'resource "aws_vcp"', "no provider has the resource aws_vcp"),
            ("cidr_block =", "cidr_blok =", "aws_vpc.this: there is no argument cidr_blok"),
            ("  broker_name        =", "  tags =", "the argument broker_name is missing"),
            ("  user {", "  usr {", "aws_mq_broker.this: there is no nested block usr"),
            ("  user {", "  usr {", "aws_mq_broker.this: the block user is missing"),
            (
                "    password",
                "    passwort",
                "aws_mq_broker.this.user: there is no argument passwort",
            ),
            (
                "    password",
                "    groups",
                "aws_mq_broker.this.user: the argument password is missing",
            ),
            ("  user {", "  user = {", "user is a nested block, not an argument"),
            ("  tags       = {", "  tags {", "tags is an argument, not a nested block"),
            ("lifecycle {", "logs {}\n  logs {}\n  lifecycle {", "there may be one block logs"),
            ("var.name", "var.nam", "aws_vpc.this: the variable nam is not declared"),
            ("var.name", '"x"', "var.name: nobody uses it"),
            ("${local.zone}", "${local.zon}", "aws_subnet.this: the local zon is not declared"),
            ("${local.zone}", "a", "local.zone: nobody uses it"),
            (
                "aws_vpc.this.id",
                "aws_vpc.that.id",
                "aws_subnet.this: aws_vpc.that is not declared",
            ),
            ("aws_vpc.this.id", "data.aws_ami.x.id", "data.aws_ami.x is not declared"),
            (
                "aws_vpc.this.id",
                "aws_vpc.this.ident",
                "aws_subnet.this: aws_vpc.this has no ident",
            ),
            ("aws_subnet.this[*].id", "aws_subnet.this[*].idd", "aws_subnet.this has no idd"),
            ("  count             = 2", "", "aws_subnet.this: count without count"),
            ("${count.index}", "${each.key}", "aws_subnet.this: each without for_each"),
            ("[user]", "[users]", "there is no argument users whose changes to ignore"),
            ("value = [", "description = [", "output.subnets: the argument value is missing"),
            ("in aws_subnet.this", "in aws_subnet.that", "output.subnets: aws_subnet.that is not"),
        ],
    )
    def test_finds(self, old: str, new: str, found: str) -> None:
        assert old in GOOD
        assert any(found in fault for fault in faults(GOOD.replace(old, new))), faults(
            GOOD.replace(old, new)
        )

    def test_a_file_that_is_none_is_named(self) -> None:
        with pytest.raises(Invalid, match=r"test\.tf: no HCL"):
            faults('resource "aws_vpc" {')

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("${a.b.c}", {("a", "b", "c")}),
            ('"x.y ${a.b} $${no.name} \\" c.d"', {("a", "b")}),
            ("${a.b[c.d[0].e].f}", {("a", "b", "f"), ("c", "d", "e")}),
            ('${x.y["k.l"].z}', {("x", "y", "z")}),
            ("${{ for k, v in a.b : k.c => v.d if e.f }}", {("a", "b"), ("e", "f")}),
            ('${join("", ["${a.b}/c.d?e", f.g])}', {("a", "b"), ("f", "g")}),
            ("${merge([for n in a.b : { x = n.c }]...)}", {("a", "b")}),
            ('"a.b"', set()),
        ],
    )
    def test_names_in_expressions(self, text: str, found: set[tuple[str, ...]]) -> None:
        assert set(chains(text)) == found


class TestOurFiles:
    def test_nothing_is_wrong(self, ours: Configuration) -> None:
        assert check.faults(ours, SCHEMAS) == []

    def test_the_schemas_are_of_a_provider_that_they_take(self) -> None:
        text = (FOLDER / "versions.tf").read_text()
        schema = (FOLDER / "schema.json").read_text()
        (major,) = re.findall(r'"aws": "(\d+)\.', schema)
        assert f'">= {major}.0, < {int(major) + 1}.0"' in text

    def test_no_schema_is_left_over(self, ours: Configuration) -> None:
        assert {f"{one.sort} {one.type}" for one in ours.resources} == set(SCHEMAS)

    def test_every_output_and_variable_says_what_it_is(self, ours: Configuration) -> None:
        for blocks in (ours.variables, ours.outputs):
            for name, block in blocks.items():
                assert "description" in block.arguments, name

    def test_the_sizes_say_the_same_things(self, ours: Configuration) -> None:
        small, large = plain(ours.locals["sizes"]).values()
        assert set(small) == set(large)

    def test_the_example_has_all_that_must_be_said(self, ours: Configuration) -> None:
        needed = {name for name, one in ours.variables.items() if "default" not in one.arguments}
        given = set(re.findall(r"^(\w+) +=", (FOLDER / "example.tfvars").read_text(), re.M))
        # Make gives the other two.
        assert needed - given == {"deployment", "image"}
        assert given <= set(ours.variables)


class TestWhatTheyPromise:
    def test_nothing_has_the_tag_of_jobs_instances(self) -> None:
        """The reaper ends what has it and is no job's: our servers too."""
        for path in FOLDER.glob("**/*.tf"):
            code = [line.partition("#")[0] for line in path.read_text().splitlines()]
            assert not [line for line in code if DEPLOYMENT_TAG in line], path.name

    def test_no_port_is_open_to_the_world(self, ours: Configuration) -> None:
        for resource in ours.resources:
            if resource.type == "aws_vpc_security_group_ingress_rule":
                source = plain(resource.body.arguments.get("cidr_ipv4", ""))
                assert source in ("", "${each.value}"), resource.address
                assert plain(resource.body.arguments["from_port"]) != 22
        assert "default" not in ours.variables["api_cidrs"].arguments
        assert plain(ours.variables["metrics_cidrs"].arguments["default"]) == []

    def test_nobody_reaches_a_job(self, ours: Configuration) -> None:
        flows = plain(ours.locals["flows"])
        assert "jobs" not in [flow[1] for flow in flows.values()]
        assert {flow[0] for flow in flows.values() if flow[1] in ("database", "broker")} == {
            "servers"
        }

    def test_ec2_takes_the_descriptions_of_groups(self, ours: Configuration) -> None:
        for text in plain(ours.locals["groups"]).values():
            assert re.fullmatch(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}", text), text

    @pytest.mark.parametrize(
        ("address", "arguments"),
        [
            (
                "aws_db_instance.this",
                {"multi_az": True, "storage_encrypted": True, "publicly_accessible": False},
            ),
            (
                "aws_mq_broker.this",
                # RabbitMQ 4 is on mq.m7g alone, and from 3.13 on AWS chooses the patch.
                {"publicly_accessible": False, "auto_minor_version_upgrade": True},
            ),
            ("aws_sqs_queue.events", {"sqs_managed_sse_enabled": True}),
        ],
    )
    def test_stores_are_closed(
        self, address: str, arguments: dict[str, Any], ours: Configuration
    ) -> None:
        found = body(ours, address).arguments
        assert {name: found[name] for name in arguments} == arguments

    def test_a_broker_is_of_a_type_that_has_its_version(self, ours: Configuration) -> None:
        assert plain(body(ours, "aws_mq_broker.this").arguments["engine_version"]).startswith("4.")
        for size in plain(ours.locals["sizes"]).values():
            assert size["broker_type"].startswith("mq.m7g.")
            assert size["broker_deployment"] in ("SINGLE_INSTANCE", "CLUSTER_MULTI_AZ")

    def test_a_servers_containers_do_not_reach_its_credentials(self, ours: Configuration) -> None:
        (options,) = body(ours, "aws_launch_template.server").blocks["metadata_options"]
        assert plain(options.arguments["http_tokens"]) == "required"
        assert options.arguments["http_put_response_hop_limit"] == 1

    def test_a_person_can_look_at_the_first_server_before_the_others_are_replaced(
        self, ours: Configuration
    ) -> None:
        (refresh,) = body(ours, "aws_autoscaling_group.servers").blocks["instance_refresh"]
        (preferences,) = refresh.blocks["preferences"]
        one = 100 / plain(ours.locals["servers"])
        first, last = preferences.arguments["checkpoint_percentages"]
        assert one - 1 < first <= one, "AWS waits once as many are new, at least"
        assert last == 100
        assert preferences.arguments["checkpoint_delay"] >= 1800

    def test_servers_run_the_jobs_family_of_images(self, ours: Configuration) -> None:
        image = body(ours, "data.aws_ami.flatcar")
        assert plain(image.arguments["owners"]) == [FLATCAR.image_owner]
        names = [plain(one.arguments["values"]) for one in image.blocks["filter"]]
        assert [FLATCAR.image_name] in names

    def test_only_servers_take_a_daemons_role(self, ours: Configuration) -> None:
        trust = body(ours, "data.aws_iam_policy_document.daemons_assume")
        (statement,) = trust.blocks["statement"]
        (principals,) = statement.blocks["principals"]
        assert principals.arguments["identifiers"] == ["${aws_iam_role.server.arn}"]

    def test_every_setting_is_one(self, ours: Configuration) -> None:
        text = "".join(path.read_text() for path in FOLDER.glob("**/*") if path.is_file())
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text))
        own = {f"{PREFIX}SERVER_ROOT", f"{PREFIX}READY_S", f"{PREFIX}API_URL"}
        known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
        assert named - own <= known
        for needed in (
            "DATABASE_URL",
            "BROKER_URL",
            "CALLBACK_KEYS",
            "CALLBACK_URL",
            "DEPLOYMENT",
        ):
            assert f"{PREFIX}{needed}" in named

    def test_the_daemons_are_those_that_are_deployed(self, ours: Configuration) -> None:
        daemons = plain(ours.locals["daemons"])
        assert set(daemons) == set(ORDER)
        ports = [daemon["port"] for daemon in daemons.values()]
        assert len(set(ports)) == len(ports)
        # The rule for Prometheus opens from the scheduler's to the reaper's.
        assert sorted(ports)[1:] == [9101, 9102, 9103]

    def test_a_servers_files_fit_into_its_user_data(self) -> None:
        """16 KB; what is left is for the settings."""
        files = [path.read_bytes() for path in (FOLDER / "server").iterdir()]
        assert sum(len(base64.b64encode(one)) for one in files) < 13_000


class TestTheSummary:
    @pytest.mark.parametrize("region", summary.REGIONS)
    def test_every_price_is_there(self, region: str, ours: Configuration) -> None:
        for size in summary.sizes(ours).values():
            assert all(row.usd > 0 for row in summary.rows(size, region))

    def test_every_resource_is_in_it(self, ours: Configuration) -> None:
        """A new one has to be priced, or said to be free."""
        priced = {cost.address.partition(".")[0] for cost in summary.COSTS} | set(summary.BY_USE)
        types = {one.type for one in ours.resources if one.sort == "resource"}
        assert types == priced | summary.FREE
        assert not priced & summary.FREE
        assert {cost.address for cost in summary.COSTS} <= {one.address for one in ours.resources}

    def test_a_figure_that_nobody_has_checked_is_marked(self) -> None:
        lines = summary.text("eu-central-1").splitlines()
        assert [line for line in lines if "mq.m7g.medium" in line and "?" in line]
        assert [line for line in lines if "nat gateway " in line and "?" not in line]
        for row in summary.prices().values():
            assert row["checked"] == summary.TO_BE_CHECKED or "20" in row["checked"]

    def test_another_region_is_told_from_those_of_the_table(self) -> None:
        assert "(of ap-south-1 the table has none" in summary.text("ap-south-1")
