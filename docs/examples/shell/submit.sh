#!/bin/sh
# Submit the job on standard input by a message, and print what became of it.
#
#     AMQP_URL=amqp://user:password@host:5672/%2F ./submit.sh < job.json
#
# The tools can set no message id: the job has to hold its key itself, as `"key"`. They can not wait for
# a direct reply either, because each of them has a connection of its own.
set -eu

set -- --url "$AMQP_URL" --heartbeat 30
case $AMQP_URL in amqps:*) set -- "$@" --cacert /etc/ssl/certs/ca-certificates.crt ;; esac
replies=replies.$(hostname).$$
fail() {
  echo "$1: send it again, with the same key" >&2
  exit 2
}

# Not every shell does what is for EXIT when a signal ends it.
trap 'exit 2' INT TERM HUP
trap 'amqp-delete-queue "$@" -q "$replies" > /dev/null || true' EXIT
amqp-declare-queue "$@" -d -q "$replies" > /dev/null || fail "no queue for the reply"

amqp-publish "$@" -e atemporal -r job.submit -p -t "$replies" || fail "not sent"
reply=$(timeout --foreground 30 amqp-consume "$@" -q "$replies" -c 1 cat) || fail "no reply"
echo "$reply"
case $reply in *'"status":"rejected"'*) exit 1 ;; esac
