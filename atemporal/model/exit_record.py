"""What a machine reports of the end of its container."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AwareDatetime, Base64Bytes, BaseModel, ConfigDict, Field

from atemporal.model.text import StorableText
from atemporal.states import Reason

LOG_TAIL_LIMIT = 32 * 1024
# The kernel's words for ENOSPC and EDQUOT, as every engine prints them.
_FULL = re.compile(rb"no space left on device|disk quota exceeded", re.IGNORECASE)
# By convention of shells and docker: 128 plus the number of the signal.
_SIGNALS = (129, 192)

ReportedReason = Literal[
    Reason.COMPLETED,
    Reason.EXIT_NONZERO,
    Reason.SIGNALLED,
    Reason.OUT_OF_MEMORY,
    Reason.START_FAILED,
    Reason.TIMED_OUT,
    Reason.UNREPORTED,
    Reason.PULL_FAILED,
    Reason.IMAGE_REFUSED,
    Reason.CREATE_FAILED,
    Reason.SPOT_INTERRUPTED,
    Reason.INSTANCE_LOST,
]
"""What a machine's report can mean."""


class ExitRecord(BaseModel):
    """What a machine says about the end of its container.

    `phase` is what ended it: the pull, docker's refusal to create or to start the container, or the
    run. Who ends the machine in between leaves `pull` or `run`: the program is not to blame.
    `exit_code` is the container's and is absent when none ever started. `stopped`: the machine was
    ended from outside while the container ran, and took it along. `definite`: asking again for the
    image would not help, here or on another machine: there is none, or not for us, or it does not fit.
    `log_bytes` is how many bytes the container wrote in all, where the machine has counted them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: Literal["pull", "create", "start", "run"] = "run"
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    oom_killed: bool = False
    timed_out: bool = False
    interrupted: bool = False
    stopped: bool = False
    definite: bool = False
    service_result: Annotated[StorableText, Field(max_length=64)] | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    log_tail: Annotated[Base64Bytes, Field(max_length=2 * LOG_TAIL_LIMIT)] = b""
    log_bytes: Annotated[int, Field(ge=0, le=2**62)] | None = None
    claim: Annotated[StorableText, Field(max_length=64)] | None = None
    instance_id: Annotated[StorableText, Field(max_length=64)] | None = None

    @property
    def detail(self) -> str | None:
        """A sentence for people, where the engine's own words do not say what to do."""
        if self.phase != "run" and _FULL.search(self.log_tail):
            return (
                "the image does not fit on the machine's disk: give the job a larger one (disk_gb)"
            )
        return None

    @property
    def reason(self) -> ReportedReason:
        """Name the ending; where signs contradict each other the more specific one wins."""
        if self.phase == "pull":
            return Reason.IMAGE_REFUSED if self.definite else Reason.PULL_FAILED
        if self.phase == "create":
            return Reason.CREATE_FAILED
        if self.phase == "start":
            return Reason.START_FAILED
        if self.interrupted:
            return Reason.SPOT_INTERRUPTED
        if self.timed_out:
            return Reason.TIMED_OUT
        if self.stopped:
            return Reason.INSTANCE_LOST
        # Docker's mark can be that of a child, which the program outlived.
        if self.oom_killed and self.exit_code != 0:
            return Reason.OUT_OF_MEMORY
        if self.exit_code is None:
            # A machine that does not even know of a start never had a word from its docker. A bare
            # callback, as a program itself may send it, says nothing about its machine.
            silent = self.claim is not None and self.started_at is None
            return Reason.INSTANCE_LOST if silent else Reason.UNREPORTED
        if self.exit_code == 0:
            return Reason.COMPLETED
        signalled = _SIGNALS[0] <= self.exit_code <= _SIGNALS[1]
        return Reason.SIGNALLED if signalled else Reason.EXIT_NONZERO
