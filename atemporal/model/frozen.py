"""The base of the nouns: values that never change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """What never changes, and has no fields but its own."""

    # A value may be a secret, also one that will not do.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
