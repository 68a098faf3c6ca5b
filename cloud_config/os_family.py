"""A family of operating systems: which image a machine boots, and how its user-data is written.

Promise: everything the project knows of a family is one value of this class. Adding one is a module
beside `flatcar` and its name in `atemporal.userdata.OS_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Render(Protocol):
    """Writes the user-data of a machine with a job manifest."""

    def __call__(self, manifest: bytes, *, gzipped: bool = False) -> bytes:
        """The same bytes for the same manifest, and as many for every manifest of that length.

        `gzipped`: what is given is a gzip of the manifest, which the machine undoes.
        """
        ...


@dataclass(frozen=True)
class OsFamily:
    """One family. `image_name` may hold EC2's wild cards; the newest image that fits is taken.

    It is looked up among those for the processors of a job's machine. Every image of the publisher
    whose name begins with `image_prefix` is of the family.
    """

    name: str
    image_owner: str
    image_name: str
    image_prefix: str
    render: Render

    def has_image(self, *, owner: str, name: str) -> bool:
        """Whether an image that EC2 lists under this account and name is of the family."""
        return owner == self.image_owner and name.startswith(self.image_prefix)


Document = Callable[[str, bool], str]
"""The whole user-data, with the manifest's base64, and whether that is of a gzip."""
