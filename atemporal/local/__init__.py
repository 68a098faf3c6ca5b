"""Local mode: the whole system in one process, on a machine that has nothing of it.

Promise: the same daemons, the same API and the same user-data as anywhere, over an embedded Postgres,
a broker in memory and a twin of EC2; what the environment names (a Postgres, a RabbitMQ, an EC2
endpoint) is used instead of ours. All state is in one directory, so that a later start goes on with
it: jobs, instances, the ports that running machines call.

`home` the directory · `postgres` the embedded server · `stack` everything, started and stopped ·
`demo` three jobs and what became of them · `demo_image` what they run on
"""
