"""The twin: a local EC2 endpoint whose machines execute the very user-data they are given.

Start it with `atemporal.twin.server.Twin(directory)` or `python -m atemporal.twin --dir D`.

Modelled, with the source of the semantics:
- EC2's query protocol for RunInstances, DescribeInstances, DescribeInstanceStatus,
  TerminateInstances, CreateTags, DescribeImages, GetConsoleOutput, DescribeInstanceAttribute,
  DescribeVolumes, DeleteVolume, DryRun (API reference, version 2016-11-15).
- Client tokens, zonal or regional, mismatch, token of a terminated instance, 64 characters
  (developer guide, "Ensuring idempotency"); tokens live 25 hours after the end of their instances.
- MinCount and MaxCount, 16,384 raw bytes of user-data, tag limits, reserved keys (API reference).
- Pages of 5 to 1,000, never together with ids; all-or-nothing TerminateInstances of up to 1,000
  ids; unknown filters and malformed ids refused (API reference, "Error codes").
- pending, running, shutting-down, terminated, stopping, stopped over time; terminated instances
  visible for an hour; StateReason; shutdown behaviour, whose default is stop; console output of 64
  KiB (user guide).
- The metadata service, version 2, tokens required; the notice of a spot interruption.
- Limits of requests and of resources, when asked for (`limits`; developer guide, "Request throttling").
- On the machine: coreos-cloudinit's `write_files` and `coreos.units` (its source), systemd's
  services and timers (systemd.service(5), systemd.unit(5), systemd.timer(5)), docker's command
  line as far as jobs need it. What is not modelled is said on the machine's console.

What goes wrong on EC2 goes wrong here when a rule says so, and else never (`rule` has all kinds, with
their fields; `admin` the endpoint by which rules are added while the twin runs; `Twin.faults` the same
in a process): throttling, no capacity, a quota, missing permission, failures and silence before or
after the deed, eventual consistency, machines that boot late or never, die, hang, lose their network
or their callbacks, spot interruptions. Calls pass one gate (`gate`), machines have one fate (`fate`).
Whatever struck is counted in a record that outlives the twin (`mishaps`).

Not modelled: signatures; existence of subnets, security groups, keys, profiles and images (any
well-formed id will do); quotas and capacity that are used up by instances; volumes but for the
root's id and tags; StartInstances, StopInstances, launch templates, fleets; events; a lost network
of containers and of docker; Ignition and cloud-init's own keys; the image's operating system:
commands are the host's.

Without a container engine a job's command is a process of this host, with the rights of the twin's
user. The port is for loopback: whoever reaches it can run programs here.
"""
