"""The host of the machines: what the twin does for an instance from its launch to its end.

`host` knows all machines, `lifecycle` is one instance's thread, `pace` says how long things take,
`metadata` is the instance metadata service.
"""

from atemporal.twin.host.pace import Pace

__all__ = ["Pace"]
