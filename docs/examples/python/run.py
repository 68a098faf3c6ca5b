"""Run a job over HTTP: submit it, wait for its end, print its log, end with its exit code.

    ATEMPORAL_API_URL=https://... ATEMPORAL_API_TOKEN=atp_... python run.py KEY IMAGE [COMMAND...]

Run it again with the same key, and it finds the same job.
"""

import os
import sys
import time

from atemporal.client import DEFAULT_URL, Client
from atemporal.errors import AtemporalError, Refused, Unavailable, Unknown

PATIENCE_S = 300


def patiently(call, *args, **kwargs):
    """What the call returns; while the API can not be reached, it is repeated."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call(*args, **kwargs)
        except (Unavailable, Unknown) as error:
            # With a key even a submit may be repeated, whether it had arrived or not.
            if time.monotonic() > give_up_at:
                raise
            print(f"again in 5 s: {error}", file=sys.stderr)
            time.sleep(5)


key, image, *command = sys.argv[1:]
url = os.environ.get("ATEMPORAL_API_URL", DEFAULT_URL)
fields = {"image": image, "ports": [], **({"command": command} if command else {})}

try:
    client = Client(url, os.environ.get("ATEMPORAL_API_TOKEN"))
    job, created = patiently(client.submit, fields, key=key)
    print("submitted" if created else "was there", job["id"], file=sys.stderr, flush=True)

    while job["state"] != "finished":
        time.sleep(1)
        job = patiently(client.job, job["id"])

    if job["instances"]:
        sys.stdout.buffer.write(patiently(client.log, job["id"], job["attempt"]))
except AtemporalError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1 if isinstance(error, Refused) else 2)

print(job["outcome"], job["reason"], file=sys.stderr)
sys.exit(1 if job["exit_code"] is None else job["exit_code"])
