"""What a machine's `docker` is: the host's engine, or a stand-in that runs processes of the host.

`engine` finds the engine and writes the machine's `docker`, which is `passthrough` in front of an
engine and `docker` without one. `command_line` reads docker's options for both. A `container` of the
stand-in is a directory; its `monitor` is the process that runs it.
"""
