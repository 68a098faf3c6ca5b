#!/bin/sh
# Submit the job on standard input by a message, and print what became of it.
#
#     AMQP_URL=amqp://user:password@host:5672/%2F ./submit.sh < job.json
#
# The tools can set no message id: the job has to hold its key itself, as `"key"`. They can not wait for
# a direct reply either, because each of them has a connection of its own.
set -eu

replies=replies.$(hostname).$$
amqp-declare-queue -u "$AMQP_URL" -d -q "$replies" > /dev/null
trap 'amqp-delete-queue -u "$AMQP_URL" -q "$replies" > /dev/null' EXIT

amqp-publish -u "$AMQP_URL" -e atemporal -r job.submit -p -t "$replies"
reply=$(timeout 30 amqp-consume -u "$AMQP_URL" -q "$replies" -c 1 cat) || {
  echo "no reply: send it again, with the same key" >&2
  exit 2
}
echo "$reply"
case $reply in *'"status":"rejected"'*) exit 1 ;; esac
