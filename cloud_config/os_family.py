"""A family of operating systems: which image a machine boots, and how its user-data is written.

Promise: everything the project knows of a family is one value of this class. Adding one is a module
beside `flatcar` and its name in `atemporal.userdata.OS_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class OsFamily:
    """One family. `image_name` may hold the wild card `*`; the newest image that fits is taken.

    Every image of the publisher whose name begins with `image_prefix` is of the family. `render` gives
    the user-data of a machine with a job manifest: the same bytes for the same manifest, and as many for
    every manifest of that length.
    """

    name: str
    image_owner: str
    image_name: str
    image_prefix: str
    architecture: str
    render: Callable[[bytes], bytes]

    def has_image(self, *, owner: str, name: str) -> bool:
        """Whether an image that EC2 lists under this account and name is of the family."""
        return owner == self.image_owner and name.startswith(self.image_prefix)
