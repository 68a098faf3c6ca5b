"""What came of a request to a receiver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A status, or why there is none; `asked_s`: for how long the receiver asks to be left alone."""

    status: int | None = None
    error: str = ""
    asked_s: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the receiver has the message now."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The same in words; empty where it was accepted."""
        if self.status is None or self.accepted:
            return self.error
        what = ", a redirect, which is not followed" if 300 <= self.status < 400 else ""
        return f"the receiver answers {self.status}{what}"
