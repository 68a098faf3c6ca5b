"""User-data before a machine's first boot: what the real programs read there, or have written by then.

Promise: Ignition's files are those that its own binary writes, as in the initramfs, but for labels of
SELinux. Canonical's cloud-init is the machine's own: its user-data lies where it looks, and it leaves
the network and the disks alone, which are the host's.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.e2e.systemd.engine import find

# Debian's package does not put it on the path: it is made for the initramfs.
IGNITION = Path("/usr/lib/dracut/modules.d/30ignition/ignition")
SEED = "var/lib/cloud/seed/nocloud"
_CONFIG = """\
datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: [bootcmd, write-files]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user]
"""


def for_ignition(user_data: bytes) -> bytes:
    """An archive of what Ignition writes into a system.

    Raises:
        RuntimeError: it writes nothing, with its words.
    """
    find("ignition-validate", "ignition")
    with tempfile.TemporaryDirectory(prefix="ignition-") as folder:
        base, root = Path(folder), Path(folder) / "root"
        _pretend_labels(base, root)
        (base / "config.ign").write_bytes(user_data)
        for stage in ("fetch", "files"):
            done = subprocess.run(
                [
                    *(IGNITION, "--platform=file", f"--stage={stage}", f"--root={root}"),
                    *(f"--config-cache={base / 'cache'}", f"--state-file={base / 'state'}"),
                    *(f"--neednet={base / 'neednet'}", "--log-to-stdout"),
                ],
                env=os.environ
                | {
                    "IGNITION_CONFIG_FILE": str(base / "config.ign"),
                    "PATH": f"{base}:{os.environ['PATH']}",
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                # It prints the whole configuration as well.
                why = [line for line in done.stdout.splitlines() if line.startswith("CRITICAL")]
                raise RuntimeError(f"ignition, {stage}: {why or done.stderr[-2000:]}")
        shutil.rmtree(root / "etc/selinux")
        # An image for Ignition has no name yet: by that systemd knows the first boot, and enables units.
        (root / "etc/machine-id").write_text("uninitialized\n")
        # Of Debian's own units none is for the host's network.
        (root / "etc/systemd/system-preset/00-test.preset").write_text(
            "disable systemd-network*\n"
        )
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(root, "")
        return content.getvalue()


def _pretend_labels(base: Path, root: Path) -> None:
    """Debian's Ignition ends by giving labels, and fails where the system has none to give."""
    contexts = root / "etc/selinux/none/contexts/files/file_contexts"
    contexts.parent.mkdir(parents=True)
    contexts.touch()
    (root / "etc/selinux/config").write_text("SELINUX=permissive\nSELINUXTYPE=none\n")
    setfiles = base / "setfiles"
    setfiles.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    setfiles.chmod(0o755)


def for_cloud_init(user_data: bytes) -> dict[str, tuple[bytes, int]]:
    """The files by which the machine's cloud-init finds its user-data."""
    return {
        "etc/cloud/cloud.cfg.d/99-test.cfg": (_CONFIG.encode(), 0o644),
        f"{SEED}/meta-data": (b"instance-id: i-1\n", 0o600),
        f"{SEED}/user-data": (user_data, 0o600),
    }
