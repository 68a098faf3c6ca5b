"""Run a job over HTTP: submit it, wait for its end, print its log, end with its exit code.

    ATEMPORAL_API_URL=https://... ATEMPORAL_API_TOKEN=atp_... python run.py KEY IMAGE [COMMAND...]

Run it again with the same key, and it finds the same job.
"""

import os
import sys
import time

from atemporal.client import DEFAULT_URL, Client
from atemporal.errors import AtemporalError, Unavailable, Unknown

key, image, *command = sys.argv[1:]
url, token = (
    os.environ.get("ATEMPORAL_API_URL", DEFAULT_URL),
    os.environ.get("ATEMPORAL_API_TOKEN"),
)
fields = {"image": image, "ports": [], **({"command": command} if command else {})}

try:
    client = Client(url, token)
    while True:
        try:
            job, created = client.submit(fields, key=key)
            break
        except (Unavailable, Unknown) as error:
            # With a key it may be repeated, whether it had arrived or not.
            print(f"again in 5 s: {error}", file=sys.stderr)
            time.sleep(5)
    print("submitted" if created else "was there", job["id"], file=sys.stderr)

    while job["state"] != "finished":
        time.sleep(1)
        job = client.job(job["id"])

    if job["instances"]:
        sys.stdout.buffer.write(client.log(job["id"], job["attempt"]))
except AtemporalError as error:
    sys.exit(f"{type(error).__name__}: {error}")

print(job["outcome"], job["reason"], file=sys.stderr)
sys.exit(1 if job["exit_code"] is None else job["exit_code"])
