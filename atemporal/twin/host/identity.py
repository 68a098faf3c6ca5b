"""Instance identity documents: what the twin says of an instance, and signs.

Promise: they have the fields of EC2's (EC2 User Guide, "Instance identity documents").
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from atemporal.architecture import architecture
from atemporal.twin.state import OWNER, Instance


def document(instance: Instance, *, instance_id: str | None = None) -> bytes:
    """What EC2 says of an instance to itself; `instance_id` is for a document of another one."""
    pending_at = datetime.fromtimestamp(instance.launched_at, UTC)
    requested = instance.parameters
    stated = {
        "accountId": OWNER,
        "architecture": architecture(requested["InstanceType"]),
        "availabilityZone": instance.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": requested["ImageId"],
        "instanceId": instance_id or instance.id,
        "instanceType": requested["InstanceType"],
        "kernelId": None,
        "pendingTime": f"{pending_at:%Y-%m-%dT%H:%M:%SZ}",
        "privateIp": instance.private_ip,
        "ramdiskId": None,
        "region": instance.zone[:-1],
        "version": "2017-09-30",
    }
    return json.dumps(stated, indent=2).encode()
