"""The certificates that instance identity documents are verified with.

Promise: what is trusted can be used, or this process does not start. Mechanism: `trusted` has the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from cryptography import x509

from atemporal.errors import Invalid
from atemporal.identity.trusted import trusted
from atemporal.settings import PREFIX, Settings

Certificates: TypeAlias = Sequence[x509.Certificate]


def certificates(settings: Settings) -> Certificates:
    """The certificates that this deployment trusts.

    Raises:
        Invalid: there is none, or they can not be read.
    """
    text = trusted(settings)
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        where = settings.identity_certificates or settings.region
        raise Invalid({f"{PREFIX}IDENTITY_CERTIFICATES": f"{where}: {error}"}) from None
