"""Print the end of each job, one JSON object a line, until you press Ctrl-C.

    AMQP_URL=amqp://user:password@host:5672/%2F python listen.py QUEUE

The queue is yours: it is made if it is not there, and keeps what comes while nobody listens.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError


def listen(queue):
    """Print what comes, until the connection or the queue ends."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(queue, "atemporal.events", "job.finished.#")
    channel.basic_qos(prefetch_count=100)
    print("listening", file=sys.stderr, flush=True)

    for method, _, body in channel.consume(queue):
        # An event can come twice: whatever you do with it, do it once for its `event_id`.
        print(body.decode(), flush=True)
        channel.basic_ack(method.delivery_tag)


try:
    listen(sys.argv[1])
    why = "the queue was deleted"
except (AMQPError, OSError, ValueError, LookupError) as error:
    why = error if str(error) else type(error).__name__
print(why, file=sys.stderr)
sys.exit(2)
