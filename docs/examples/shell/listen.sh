#!/bin/sh
# Print the end of each job, one JSON object a line, until you press Ctrl-C.
#
#     AMQP_URL=amqp://user:password@host:5672/%2F ./listen.sh
#
# The queue ends with its connection: what comes while nobody listens is lost.
set -eu
set -- --url "$AMQP_URL" --heartbeat 30
case $AMQP_URL in amqps:*) set -- "$@" --cacert /etc/ssl/certs/ca-certificates.crt ;; esac
exec amqp-consume "$@" -e atemporal.events -r 'job.finished.#' -p 100 -- sh -c 'cat; echo'
