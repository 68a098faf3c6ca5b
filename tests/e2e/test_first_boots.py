"""Each OS family's user-data, applied by the program that its images have, on a real systemd and docker.

Ignition's own binary writes the files, Debian's own cloud-init applies its user-data during the boot;
for coreos-cloudinit, which no package has, the machine stands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from atemporal.model import ExitRecord
from tests import callback_api
from tests.e2e.systemd.engine import open_engine, open_registry
from tests.e2e.systemd.images import CLOUD_INIT, machine_image, push_job_image
from tests.e2e.systemd.machine import Machine, open_machine
from tests.e2e.test_systemd import AWKWARD, Case, Site

# Building the machines' images takes some minutes, once.
pytestmark = pytest.mark.timeout(900)

PRINT_ALL = ("/bin/sh", "-c", 'printf "%s|" "$AWKWARD" "$EMPTY" "$V007" "$V149"; exit 7')
# Too large to travel as it is.
MORE = {f"V{number:03}": f"{number:03} {AWKWARD}" for number in range(150)}
UPDATES = {
    "flatcar": ("update-engine.service", "locksmithd.service"),
    "fcos": ("zincati.service", "update-engine.service", "locksmithd.service"),
    "debian": ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service"),
}
PROGRAMS = {"flatcar": "coreos-cloudinit", "fcos": "ignition", "debian": "cloud-init"}


@dataclass
class Sites:
    """One docker with the images that machines of the programs boot."""

    plain: Site
    with_cloud_init: Site


@dataclass
class FamilyCase(Case):
    """One attempt on a machine of a family that is not on yet."""

    family: str = "flatcar"
    program: str = field(default="coreos-cloudinit")

    def begin(self, user_data: bytes) -> None:
        """Boot with this user-data."""
        if self.program == "coreos-cloudinit":
            self.machine.boot()
            self.machine.apply(user_data)
        else:
            self.machine.first_boot(user_data, by=self.program)


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with open_engine() as engine, open_registry() as registry:
        job = push_job_image(engine, registry)
        yield Sites(
            Site(engine, machine_image(engine), job),
            Site(engine, machine_image(engine, CLOUD_INIT), job),
        )


@pytest.fixture(params=PROGRAMS)
def case(sites: Sites, request: pytest.FixtureRequest) -> Iterator[FamilyCase]:
    yield from _opened(sites, request.param, PROGRAMS[request.param])


@pytest.fixture(params=[("flatcar", "cloud-init"), ("debian", "coreos-cloudinit")])
def wrong(sites: Sites, request: pytest.FixtureRequest) -> Iterator[FamilyCase]:
    yield from _opened(sites, *request.param)


def _opened(sites: Sites, family: str, program: str) -> Iterator[FamilyCase]:
    site = sites.with_cloud_init if program == "cloud-init" else sites.plain
    with (
        callback_api.serve() as api,
        open_machine(site.engine, site.machine_image, api.url, boots=False) as machine,
    ):
        case = FamilyCase(site, api, machine, family=family, program=program)
        yield case
        site.engine.run("rm", "--force", f"atemporal-{case.ref.id}", check=False)


def _units(machine: Machine, family: str) -> list[str]:
    units = (*UPDATES[family], "atemporal-deadline.service", "atemporal-job.service")
    return [machine.state(unit) for unit in units]


def test_the_job_runs_with_its_environment_byte_for_byte_under_the_deadline(
    case: FamilyCase,
) -> None:
    at_call = dict[str, list[str]]()
    case.api.before_response = lambda call: at_call.update(
        {call.method: _units(case.machine, case.family)}
    )
    case.begin(case.user_data(family=case.family, command=PRINT_ALL, more=MORE))
    case.machine.wait_off(within_s=120)

    assert case.api.methods == ["PUT", "PATCH", "DELETE"]
    record = ExitRecord.model_validate(case.api.body("DELETE"))
    assert (record.phase, record.exit_code) == ("run", 7)
    assert record.log_tail.decode() == f"{AWKWARD}||{MORE['V007']}|{MORE['V149']}|"
    *updates, deadline, job = at_call["PATCH"]
    assert updates == ["inactive (masked)"] * len(UPDATES[case.family])
    assert (deadline, job) == ("active (enabled)", "activating (static)")


def test_a_second_boot_powers_off_without_running_again(case: FamilyCase) -> None:
    case.begin(case.user_data(family=case.family))
    case.machine.wait_off(within_s=120)
    before, calls = case.container, case.api.methods
    assert calls == ["PUT", "PATCH", "DELETE"]
    case.machine.boot_again()
    case.machine.wait_off(within_s=120)
    case.machine.wait_says("has been here before")
    assert (case.container, case.api.methods) == (before, calls)


def test_the_deadline_ends_a_machine_that_nobody_answers(case: FamilyCase) -> None:
    case.api.statuses["PATCH"] = [503]
    case.begin(case.user_data(family=case.family, deadline_s=6))
    case.machine.wait_off(within_s=120)
    assert set(case.api.methods) <= {"PUT", "PATCH"}
    assert not (case.container or "").startswith("exited")


def test_an_image_of_another_family_powers_off_and_runs_nothing(wrong: FamilyCase) -> None:
    wrong.begin(wrong.user_data(family=wrong.family))
    wrong.machine.wait_off(within_s=120)
    assert wrong.container is None
    assert wrong.api.calls == []
