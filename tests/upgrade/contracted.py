"""What steps after the kept release may do though they do not only add, and why nobody notices.

A step that takes away ("contract") stands here with the release that used it last: that one must be
older than the kept release. When the archive is replaced, what its steps did is taken out.
"""

from __future__ import annotations

from tests.upgrade.expanding import Mistake

WHY = {
    Mistake(
        "0027",
        "ADD CONSTRAINT ck_fires_says_what CHECK ((outcome = 'ran') = (reason IS NULL) AND "
        "(outcome = 'ran' OR settled) AND (job_id IS NULL OR outcome = 'ran' OR reason = "
        "'start_deadline') AND (job_id IS NOT NULL OR outcome <> 'ran')) NOT VALID",
    ): "it is wider: a fire that was skipped may keep its job too, all others are as before",
}
"""A mistake by the rule: why it is none."""
