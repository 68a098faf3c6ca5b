"""Known secrets leave nothing in a text, however others wrote them into it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from atemporal.cli.scrubber import Scrubber

SECRET = 'pa ss/w"örd\n2nd-line+of&it'
SCRUBBER = Scrubber([SECRET, "tiny", ""])


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        *(quote(SECRET), quote(SECRET, safe=""), quote_plus(SECRET)),
        *(json.dumps(SECRET), json.dumps(SECRET, ensure_ascii=False), repr(SECRET)),
        *(base64.b64encode(b"x" * n + SECRET.encode() + b"yz").decode() for n in range(4)),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        "it says\n2nd-line+of&it\nalone",
    ],
)
def test_a_secret_is_found_however_it_was_written(written: str) -> None:
    shown = SCRUBBER.text(f"before {written} behind")
    assert "***" in shown
    assert shown.startswith("before ")
    assert shown.endswith(" behind")
    for piece in (SECRET, "w%22", "2nd-line", base64.b64encode(SECRET.encode()).decode()[4:20]):
        assert piece not in shown


def test_the_pieces_at_a_cut_text_s_ends_go() -> None:
    one = Scrubber(["s3cret-of-the-job"])
    assert one.text("of-the-job is\nwhat s3cret-o", cut=True) == "*** is\nwhat ***"
    assert one.text("of-the-job", cut=False) == "of-the-job"
    assert one.text("jobs are s3", cut=True) == "jobs are s3", "too short to tell"


def test_of_two_secrets_the_longer_goes_whole() -> None:
    assert Scrubber(["abcdef", "abcdefghij"]).text("abcdefghij abcdef") == "*** ***"


def test_passwords_of_urls_and_bearers_need_not_be_known() -> None:
    text = "amqp://me:p@ss@host/ Bearer atp_xyz https://h/?a=1&X-Amz-Signature=abc&token=t0k&b=2"
    assert Scrubber([]).text(text) == (
        "amqp://me:***@host/ Bearer *** https://h/?a=1&X-Amz-Signature=***&token=***&b=2"
    )


def test_names_and_values_of_json_are_scrubbed_and_the_rest_stays() -> None:
    given = {"2nd-line+of&it": [SECRET, 1, None, ("tiny", True)]}
    assert SCRUBBER.value(given) == {"***": ["***", 1, None, ["tiny", True]]}
