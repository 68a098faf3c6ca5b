"""A launch for tests to which it does not matter what is launched."""

from __future__ import annotations

from atemporal.model import Launch

LAUNCH = Launch(
    image_id="ami-1",
    instance_type="t3.small",
    callback_base="http://127.0.0.1:9",
    key_id="k1",
    deadline_s=600,
)
