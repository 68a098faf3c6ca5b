"""Make a recurring schedule by a message, or change it, and print what became of that.

AMQP_URL=amqp://user:password@host:5672/%2F python schedule.py KEY < schedule.json
AMQP_URL=amqp://user:password@host:5672/%2F python schedule.py KEY pause|resume|run|delete NAME
"""

import json
import os
import sys
import time

import pika
from pika.exceptions import AMQPError, UnroutableError


def change(key, what, **fields):
    """Send what is wanted of the schedule, and return the reply."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()

    replies = channel.queue_declare("", exclusive=True).method.queue
    answers = []
    channel.basic_consume(replies, lambda *delivery: answers.append(delivery[-1]), auto_ack=True)

    # Raises when the broker does not take it, or has no queue for it.
    channel.basic_publish(
        "atemporal",
        f"schedule.{what}",
        json.dumps({"type": f"schedule.{what}", "v": 1, **fields}),
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
    key, what, *name = sys.argv[1:] if len(sys.argv) > 2 else [*sys.argv[1:], "put"]
    wanted = {"schedule": json.load(sys.stdin)} if what == "put" else {"name": name[0]}
    # Whoever sends the same message again sends the same serial: keep it with the key.
    reply = change(
        key, what, serial=int(os.environ.get("SERIAL", time.time_ns() // 10**6)), **wanted
    )
except (AMQPError, OSError, ValueError, LookupError) as error:
    why = error if str(error) else type(error).__name__
    if isinstance(error, UnroutableError):
        why = "the broker has no queue for it: is atemporal set up there? If so"
    print(f"{why}: send it again, with the same key and SERIAL", file=sys.stderr)
    sys.exit(2)

print(json.dumps(reply))
sys.exit(reply["status"] == "rejected")
