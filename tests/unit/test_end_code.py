"""What EC2's codes for the end of an instance mean."""

from __future__ import annotations

import pytest

from atemporal.end_code import is_ec2s_fault, is_spot_interruption


@pytest.mark.parametrize(
    ("code", "interruption", "ec2s_fault"),
    [
        ("Server.SpotInstanceTermination", True, True),
        ("Server.SpotInstanceShutdown", True, True),
        ("Client.SpotInstanceOfTomorrow", True, False),
        ("Server.InternalError", False, True),
        ("Client.UserInitiatedShutdown", False, False),
        ("Server", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_a_code_says_whether_spot_was_taken_back_and_whose_fault_the_end_was(
    code: str | None, interruption: bool, ec2s_fault: bool
) -> None:
    assert is_spot_interruption(code) is interruption
    assert is_ec2s_fault(code) is ec2s_fault
