"""Submit the job on standard input by a message, and print what became of it.

    AMQP_URL=amqp://user:password@host:5672/%2F python submit.py KEY [--direct] < job.json

`--direct` takes RabbitMQ's direct reply-to in place of a queue of its own.
"""

import json
import os
import sys
import time

import pika
from pika.exceptions import AMQPError, UnroutableError


def submit(key, job, *, direct):
    """Send the job, and return the reply."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()

    replies = "amq.rabbitmq.reply-to"
    if not direct:
        replies = channel.queue_declare("", exclusive=True).method.queue

    answers = []
    channel.basic_consume(replies, lambda *delivery: answers.append(delivery[-1]), auto_ack=True)

    # Raises when the broker does not take it, or has no queue for it.
    channel.basic_publish(
        "atemporal",
        "job.submit",
        json.dumps({"type": "job.submit", "v": 1, "job": job}),
        pika.BasicProperties(message_id=key, delivery_mode=2, reply_to=replies),
        mandatory=True,
    )

    give_up_at = time.monotonic() + 30
    while not answers:
        if time.monotonic() > give_up_at:
            raise TimeoutError("no reply")
        connection.process_data_events(time_limit=1)
    connection.close()
    return json.loads(answers[0])


try:
    reply = submit(sys.argv[1], json.load(sys.stdin), direct="--direct" in sys.argv)
except (AMQPError, OSError, ValueError, LookupError) as error:
    why = error if str(error) else type(error).__name__
    if isinstance(error, UnroutableError):
        why = "the broker has no queue for it: is atemporal set up there? If so"
    print(f"{why}: send it again, with the same key", file=sys.stderr)
    sys.exit(2)

print(json.dumps(reply))
sys.exit(reply["status"] == "rejected")
