"""The base of the nouns: values that never change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """What never changes, and has no fields but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
