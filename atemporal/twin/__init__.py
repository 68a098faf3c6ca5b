"""The twin: a local EC2 endpoint whose machines execute the very user-data they are given.

Start it with `atemporal.twin.server.Twin(directory)` or `python -m atemporal.twin --dir D`. Its rooms,
each importing only those below it:

    server        one loopback port for all of it
    ec2           EC2's API: the protocol, the table of actions (`ec2.api.ACTIONS`), their handlers,
                  limits, and the interceptor that every call passes
    host          a thread for each instance, from its launch to its end; the metadata service
    machine       the process that is a machine: its first boot, units, services, console
    containers    a machine's docker: the host's engine, or a stand-in that runs processes
    faults        kinds of faults, the rules by which they are injected, the plan for each machine
    state         reservations and instances, on disk; beside it `processes` of this host, `jsonfile`

Modelled, with the source of the semantics:
- EC2's query protocol for the actions in the table, and DryRun (API reference, version 2016-11-15).
- Client tokens, zonal or regional, mismatch, token of a terminated instance, 64 characters
  (developer guide, "Ensuring idempotency"); tokens live 25 hours after the end of their instances.
- MinCount and MaxCount, 16,384 raw bytes of user-data, tag limits, reserved keys (API reference;
  user guide, "Tag restrictions").
- Pages of 5 to 1,000, never together with ids; all-or-nothing TerminateInstances of up to 1,000
  ids; unknown filters and malformed ids refused (API reference, "Error codes").
- pending, running, shutting-down, terminated, stopping, stopped over time; terminated instances
  visible for an hour; StateReason; shutdown behaviour, whose default is stop; console output of 64
  KiB (user guide).
- The metadata service, version 2, tokens required; the notice of a spot interruption.
- One processor architecture for image and instance type, and a root volume that holds the image
  (error codes of RunInstances); a default VPC's subnets, security groups and routes, to be read.
- Limits of requests and of resources, when asked for (developer guide, "Request throttling").
- On the machine: coreos-cloudinit's `write_files` and `coreos.units` (its source), files and units of
  Ignition's specification 3, Canonical's `bootcmd`, `write_files` and `runcmd` as far as they mask and
  start units, each on the images that have that program; systemd's services as far as the project's own
  two units use them (systemd.service(5), systemd.unit(5));
  docker's command line as far as jobs need it. A unit that asks for more is refused, and the
  machine's console has the reason.

Faults happen when a rule asks for them, and never otherwise (`faults.kind` lists them all;
`faults.admin` is the endpoint by which rules are added while the twin runs, `Twin.faults` the same in
a process): throttling, no capacity, a quota, missing permission, failures and lost responses before
or after a call was carried out, eventual consistency, machines that boot late or never, die, hang,
lose their network or their callbacks, spot interruptions. Every injected fault is in a journal that
outlives the twin.

Not modelled: signatures; existence of subnets, security groups, keys, profiles and images (any
well-formed id will do, but for the fault `missing`); quotas and capacity that are used up by
instances; volumes except for the root's id and tags; StartInstances, StopInstances, launch templates,
fleets; a second boot; events; a lost network of containers and of docker; other keys of Ignition and
cloud-init; the image's operating system: commands are the host's, and none of them powers off the
machine.

Without a container engine a job's command is a process of this host, with the rights of the twin's
user. The port is for loopback: any client that reaches it can run programs here.
"""
