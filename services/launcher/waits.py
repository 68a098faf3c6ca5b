"""What an attempt that has no instance yet can wait for, gravest first.

Promise: the word stands in the books (`detail` of the attempt, `attempt.waiting` in the history) and
is the label of a metric, so a reader of any of them finds the same few words. Our own limit on calls
is not among them: it is moments away.
"""

from __future__ import annotations

from enum import StrEnum


class Wait(StrEnum):
    """What has to change before EC2 is asked (again) for the attempt's instance."""

    AUTHORIZATION = "authorization"
    """EC2 refuses this process: altogether (credentials, policy, account), or what the job wants."""
    KEY = "key"
    """Its callback key has not reached this launcher yet."""
    QUOTA = "quota"
    """The account's limit is reached."""
    CAPACITY = "capacity"
    """No candidate has room."""
    INTERRUPTIONS = "interruptions"
    """Only spot will do, and its pools interrupt again and again."""
    ANSWER = "answer"
    """A call may have launched it: the identical call is repeated until that is sure."""
    THROTTLE = "throttle"
    """EC2 said: too many calls."""
