"""What this deployment can not do for a job, though the job is right by itself.

Promise: a job is accepted only where it can be launched as it wants: a bound on its cost has prices, and
what is delivered by claim has machines that can prove which instance they are. Every door asks the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from atemporal.errors import Invalid
from atemporal.identity.trusted import can_verify
from atemporal.model import JobSpec
from atemporal.prices import NO_PRICES, Prices, load
from atemporal.settings import PREFIX, Settings
from atemporal.userdata import delivery_of


@dataclass(frozen=True)
class Terms:
    """The prices that bounds are held by, and whether machines can be told their jobs by claim."""

    prices: Prices = NO_PRICES
    claims: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """Those of a deployment.

        Raises:
            Invalid: the price table can not be read.
        """
        return cls(load(settings), can_verify(settings))

    def check(self, spec: JobSpec, *, within: str = "") -> None:
        """Refuse what can not be done here; `within` is what the field is part of.

        Raises:
            Invalid: it says what to do.
        """
        self.prices.check(spec, within=within)
        if self.claims or delivery_of(spec) == "inline":
            return
        field = "secrets" if spec.secrets else "delivery" if spec.delivery == "claim" else "env"
        raise Invalid(
            {
                f"{within}{field}": "is delivered by claim, and here no machine can prove which "
                "instance it is: have the operator name the certificate of EC2's instance identity "
                f"documents ({PREFIX}IDENTITY_CERTIFICATES), or believe machines without a proof "
                f"({PREFIX}INSTANCE_IDENTITY=off)"
            }
        )


NO_TERMS = Terms()
