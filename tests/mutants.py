"""`make mutants`: mistakes that somebody could make in the product, and the tests that must see them.

Promise: every mistake is made in a copy of the sources, and each test named beside it is run there
and has to fail; one that still passes is a hole in the net, and the exit status says so. Before that
each test has to pass in a copy without a mistake: else its failure would prove nothing. A mistake
whose place is not found any more is an error: the list has to follow the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIMULATION = "sim/test_simulation.py::test_the_promises_hold_under_hundreds_of_schedules"
OFFERINGS = "integration/test_offerings.py::TestOfferings"
CANARY = "e2e/test_secrets.py::test_a_secret_is_where_it_is_needed_and_nowhere_else"
FAILED = 1


@dataclass(frozen=True)
class Mutant:
    """One mistake: in a file, `right` becomes `wrong`."""

    title: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Make it in the sources below `root`.

        Raises:
            ValueError: its place is not there, or not unique.
        """
        path = root / self.file
        source = path.read_text()
        if source.count(self.right) != 1:
            found = source.count(self.right)
            raise ValueError(f"{self.title}: {self.file} has {found} places like {self.right!r}")
        path.write_text(source.replace(self.right, self.wrong))


MUTANTS = (
    Mutant(
        "a random ClientToken",
        "atemporal/cloud/launch_request.py",
        '"ClientToken": token,',
        '"ClientToken": __import__("uuid").uuid4().hex,',
        (
            "contract/test_twin.py::test_the_same_call_again_is_the_same_instance",
            f"{OFFERINGS}::test_a_crash_after_the_call_repeats_it_to_the_byte",
            SIMULATION,
        ),
    ),
    Mutant(
        "a fixed time fires when it comes the second time",
        "atemporal/calendar/zone_rules.py",
        "wall.replace(tzinfo=where, fold=0)",
        "wall.replace(tzinfo=where, fold=1)",
        (
            "unit/test_cron_line.py::test_a_change_of_the_clock",
            "unit/test_calendar_zones.py::test_a_line_fires_as_the_rules_say_around_each_change",
        ),
    ),
    Mutant(
        "a rhythm that overlooks a change of the clock",
        "atemporal/calendar/cron_line.py",
        "            if change is None:\n",
        "            if True:\n",
        (
            "unit/test_cron_line.py::test_a_change_of_the_clock",
            "unit/test_calendar_zones.py::test_any_line_fires_as_the_rules_say",
        ),
    ),
    Mutant(
        "the machine's zone files",
        "atemporal/calendar/zone_rules.py",
        "return ZoneInfo.from_file(data, key=name)",
        "return ZoneInfo(name)",
        ("unit/test_cron_line.py::test_the_machines_zone_files_change_nothing",),
    ),
    Mutant(
        "the next zone after a timeout",
        "services/launcher/decision.py",
        "return Blocked(BlockedReason.ANSWER, outcome.detail, REPEAT_S)",
        "return choose(facts.offerings[::-1], {})",
        (
            f"{OFFERINGS}::test_never_another_offering_after_an_unknown_outcome",
            SIMULATION,
        ),
    ),
    Mutant(
        "an acknowledgement before the commit",
        "services/scheduler/submit.py",
        "for delivery in self._inbox.take(BATCH):",
        "batch = self._inbox.take(BATCH)\n"
        "        self._link.ack(batch)\n"
        "        for delivery in batch:",
        (SIMULATION,),
    ),
    Mutant(
        "an update of an attempt that is not guarded",
        "atemporal/store/transitions.py",
        "ref.number,\n            attempts.c.state.in_(attempt_states_before(to)),\n",
        "ref.number,\n",
        (
            "integration/test_transitions.py::test_no_attempt_moves_outside_the_tables",
            SIMULATION,
        ),
    ),
    Mutant(
        "an update of a job that is not guarded",
        "atemporal/store/transitions.py",
        "ref.number,\n            jobs.c.state.in_(job_states_before(to)),\n",
        "ref.number,\n",
        ("integration/test_transitions.py::test_no_move_outside_the_tables_is_possible",),
    ),
    Mutant(
        "an update of many attempts that is not guarded",
        "atemporal/store/transitions.py",
        "own.c.number,\n            attempts.c.state.in_(attempt_states_before(to)),\n",
        "own.c.number,\n",
        ("integration/test_transitions.py::test_no_attempt_moves_outside_the_tables",),
    ),
    Mutant(
        "an update of many jobs that is not guarded",
        "atemporal/store/transitions.py",
        "given.c.number,\n            jobs.c.state.in_(job_states_before(to)),\n",
        "given.c.number,\n",
        ("integration/test_transitions.py::test_of_many_jobs_those_move_that_the_table_lets",),
    ),
    Mutant(
        "a claimed instance id is believed",
        "atemporal/store/attempts.py",
        '        "claimed_instance_id": instance_id,\n',
        '        "claimed_instance_id": instance_id, "instance_id": known or instance_id,\n',
        (
            "integration/test_whose_instance.py"
            "::test_a_claimed_id_is_not_believed_and_the_true_instance_is_found_by_its_tags",
            SIMULATION,
        ),
    ),
    Mutant(
        "a claim is granted before its time",
        "atemporal/store/attempts.py",
        "    if early_s > 0:\n",
        "    if early_s > 600:\n",
        (
            "integration/test_starts.py::TestHold"
            "::test_none_is_granted_before_its_time_and_an_older_agent_not_a_second_ahead",
        ),
    ),
    Mutant(
        "an attempt that failed ahead of its time is followed by one that starts at once",
        "atemporal/store/retries.py",
        "func.greatest(at, jobs.c.due_at)",
        "at",
        (
            "integration/test_starts.py::TestLead"
            "::test_one_that_failed_ahead_of_its_time_starts_at_that_time_all_the_same",
        ),
    ),
    Mutant(
        "no grace for young instances",
        "atemporal/fleet/absence.py",
        "            old = snapshot.is_older(since, grace_s)\n",
        "            old = since is not None\n",
        ("unit/test_plan.py::test_absence_of_a_young_instance_proves_nothing",),
    ),
    Mutant(
        "no grace for young instances that nobody knows",
        "atemporal/fleet/plan.py",
        "if self._snapshot.is_older(instance.launched_at, self._limits.grace_s):",
        "if True:",
        (
            "unit/test_plan.py"
            "::test_an_orphaned_instance_is_marked_then_ended_and_a_young_one_is_spared",
            "integration/test_reaper.py::test_a_young_instance_that_nobody_knows_is_not_even_marked",
        ),
    ),
    Mutant(
        "another installation's instances judged like ours",
        "atemporal/fleet/snapshot.py",
        "elif one.ref not in attempts and one.foreign_to(installation):",
        "elif False:",
        (
            "unit/test_plan.py::test_an_orphaned_instance_of_another_installation_is_foreign",
            "integration/test_reaper.py::TestAnotherInstallation",
        ),
    ),
    Mutant(
        "the reaper's sweep off",
        "services/reaper/sweep.py",
        "                self._sweep()\n",
        "                pass\n",
        ("e2e/test_crashes.py::test_all_queues_are_purged_in_mid_flight", SIMULATION),
    ),
    Mutant(
        "the launcher's sweep off",
        "services/launcher/sweep.py",
        "        self._calls.make(self._launcher.unfinished())\n",
        "",
        ("e2e/test_crashes.py::test_all_queues_are_purged_in_mid_flight", SIMULATION),
    ),
    Mutant(
        "a secret in the user-data",
        "atemporal/userdata.py",
        'return "claim" if spec.secrets or spec.secret_refs or _too_large(spec) else "inline"',
        'return "claim" if spec.secret_refs or _too_large(spec) else "inline"',
        ("unit/test_userdata.py::TestDelivery", CANARY),
    ),
    Mutant(
        "a secret in every view",
        "atemporal/model/secret.py",
        "PlainSerializer(names_of, return_type=dict[str, None])",
        "PlainSerializer(revealed, return_type=dict[str, str])",
        (CANARY,),
    ),
    Mutant(
        "a secret in the log",
        "services/api/machines.py",
        'log.info("assigned", ',
        'log.debug("told", what=str(manifest(attempt.ref, spec, attempt.launch, own)))\n'
        '        log.info("assigned", ',
        (CANARY,),
    ),
    Mutant(
        "a secret in a dead letter's view",
        "services/api/dead_letter_body.py",
        "fields[name](one) if name in fields else None",
        "one",
        (CANARY,),
    ),
    Mutant(
        "a secret that a refusal repeats",
        "atemporal/model/secret.py",
        'environment.check_name(str(name), "a secret")',
        "environment.check({str(name): ''})",
        (CANARY,),
    ),
    Mutant(
        "a reference's place that shows what stands there",
        "services/api/dead_letter_body.py",
        "isinstance(one, str) and REFERENCE.fullmatch(one)",
        "True",
        (CANARY,),
    ),
    Mutant(
        "a secret by reference that is left out",
        "atemporal/userdata.py",
        "    if spec.secret_refs:\n        by_claim +=",
        "    if False:\n        by_claim +=",
        ("unit/test_secret_resolver.py::test_it_is_asked_for_in_the_name_of_the_role",),
    ),
    Mutant(
        "a container without its secret by reference",
        "cloud_config/secret_resolver",
        'else echo pull; fi >"$state/phase"\n      return 1',
        'else echo pull; fi >"$state/phase"\n      break',
        (
            "unit/test_secret_resolver.py::test_what_can_not_be_had_ends_the_job_before_its_container",
        ),
    ),
    Mutant(
        "a machine without a role for a secret by reference",
        "services/launcher/launcher.py",
        "elif spec.secret_refs and not attempt.launch.instance_profile:",
        "elif False:",
        (
            "integration/test_launcher.py::TestDelivery"
            "::test_secrets_by_reference_are_for_instances_with_a_role",
        ),
    ),
    Mutant(
        "a migration that a deadlock ends",
        "atemporal/migrations/__init__.py",
        '_LOCKED = ("55P03", "40P01")',
        '_LOCKED = ("55P03",)',
        ("integration/test_migrations.py::test_a_deadlock_with_a_daemon_is_no_end_of_it",),
    ),
    Mutant(
        "a job that is told again after its claim",
        "atemporal/store/assignments.py",
        "if attempt.state not in _UNCLAIMED:",
        "if False:",
        (
            "unit/test_api_machines.py::TestLone::test_once_claimed_nobody_is_told_any_more",
            "unit/test_api_machines.py::test_the_machine_of_a_group_is_told_no_more_once_its_attempt_is"
            "_claimed",
        ),
    ),
)


def main() -> int:
    """Try every mistake, or those whose titles hold a word given; 1 when a test saw nothing."""
    words = sys.argv[1:]
    chosen = [one for one in MUTANTS if not words or any(word in one.title for word in words)]
    bad = 0
    with _copied() as copy:
        for test in dict.fromkeys(test for mutant in chosen for test in mutant.tests):
            sound = _run(copy, test) == 0
            bad += not sound
            print(f"{'passes' if sound else 'FAILS':8}  without a mistake: {test}", flush=True)
    for mutant in chosen:
        with _copied() as copy:
            mutant.apply(copy)
            for test in mutant.tests:
                killed = _run(copy, test) == FAILED
                bad += not killed
                print(
                    f"{'killed' if killed else 'SURVIVED':8}  {mutant.title}: {test}", flush=True
                )
    return 1 if bad else 0


@contextmanager
def _copied() -> Iterator[Path]:
    """A copy of the sources, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="atemporal-mutant-") as directory:
        copy = Path(directory, "copy")
        _copy(copy)
        yield copy


def _copy(to: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def _run(root: Path, test: str) -> int:
    """Run a test over the sources below `root`; return pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/{test}"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, FAILED):
        raise RuntimeError(
            f"tests/{test} did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
