"""What a process takes: which modules its start imports, and what it gives back."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from atemporal import memory

# What each takes more than a megabyte of and does nothing for a daemon.
HEAVY = ("rich", "pygments", "boto3", "s3transfer", "alembic", "httpx", "docker", "jsonschema")
OF_HTTP = ("fastapi", "uvicorn", "click")
OF_PROOFS = ("cryptography", "asn1crypto")
UNWANTED = {
    "services.scheduler": (*HEAVY, *OF_HTTP, *OF_PROOFS, "botocore", "urllib3"),
    "services.launcher": (*HEAVY, *OF_HTTP, *OF_PROOFS),
    "services.reaper": (*HEAVY, *OF_HTTP, *OF_PROOFS),
    "services.api": (*HEAVY, "botocore", "sqlalchemy.orm"),
}


@pytest.mark.parametrize("service", UNWANTED)
def test_a_daemon_starts_without_what_it_does_not_need(service: str) -> None:
    code = f"import sys, {service}.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert service in done.stdout.split()
    assert set(UNWANTED[service]) & set(done.stdout.split()) == set()


def test_an_absent_module_is_there_again_afterwards() -> None:
    code = (
        "import sys\n"
        "from atemporal.absent import absent\n"
        "with absent('wave'):\n"
        "    try:\n"
        "        import wave\n"
        "    except ImportError:\n"
        "        print('absent')\n"
        "import wave\n"
        "with absent('wave'):\n"
        "    import wave\n"
        "print(wave.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["absent", "wave"]


def test_what_the_start_made_is_out_of_the_collectors_way() -> None:
    before = gc.get_freeze_count()
    try:
        memory.one_arena()
        kept = [[number] for number in range(1000)]
        memory.settle()
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.unfreeze()
