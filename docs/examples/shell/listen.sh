#!/bin/sh
# Print the end of each job, one JSON object a line, until you press Ctrl-C.
#
#     AMQP_URL=amqp://user:password@host:5672/%2F ./listen.sh
#
# The queue ends with its connection: what comes while nobody listens is lost.
set -eu
exec amqp-consume -u "$AMQP_URL" -e atemporal.events -r 'job.finished.#' -- sh -c 'cat; echo'
