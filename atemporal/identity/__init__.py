"""EC2's signed instance identity documents: which instance a machine is, proved and not believed."""

from atemporal.identity.certificates import Certificates, certificates, group_size
from atemporal.identity.document import LONGEST, Document, Unproven, read
from atemporal.identity.signer import CERTIFICATE, IdentitySigner

__all__ = [
    "CERTIFICATE",
    "LONGEST",
    "Certificates",
    "Document",
    "IdentitySigner",
    "Unproven",
    "certificates",
    "group_size",
    "read",
]
