"""One machine of the twin: a process that boots on a user-data, runs it, and ends when powered off.

`python -m atemporal.twin.machine DIR` is such a process. `machine` is its root and its boot,
`programs` what stands in its `usr/bin`, `console` its serial console. `cloudinit`, `ignition` and
`canonical` read the user-data, each into a `first_boot`, `unit` the unit files in it; `init` starts the
units, each of which is a `service`. `curl` is the machine's network, which can be made to fail.
"""
