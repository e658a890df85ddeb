"""A stream from code that is no actor: what a Celery task, a Django view or a cron job writes, any Loom server serves.

The two processes share a store and nothing else. The one that writes is plain and synchronous; the reader here is a
browser's: server-sent events from `loom serve`, which knows nothing of it but its id.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import loom

app = loom.App()  # the server's: it needs no actor for this


def import_rows(store: str, job: str) -> None:
    """As the body of a Celery task: the task's id is the run's. Tried again, it goes on where it stopped."""
    with loom.connect_sync(store) as client, client.publisher(job, actor="import-rows", retention=3600) as pub:
        done = len([chunk for chunk in pub.previous() if chunk.type == "data"])
        for row in range(done, 5):
            pub.publish({"row": row})
            pub.publish(loom.Progress(row + 1, 5))
        pub.complete({"rows": 5})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/runs.db"
        port = free_port()
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "loom",
                "serve",
                "publish:app",
                "--store",
                store,
                "--port",
                str(port),
                "--no-worker",
            ],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            task = subprocess.Popen([sys.executable, __file__, store, "job-7"])
            for event, data in events(f"http://127.0.0.1:{port}/runs/job-7/events"):
                print(event, json.dumps(data.get("data") or data.get("progress")))
            assert task.wait() == 0
        finally:
            server.terminate()
            server.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def events(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a browser's EventSource does, once server and run are there."""
    for _ in range(200):
        try:
            answer = urllib.request.urlopen(url, timeout=20)
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    with answer:
        event = ""
        for line in answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                yield event, json.loads(value)


if __name__ == "__main__":
    import_rows(*sys.argv[1:]) if sys.argv[1:] else main()
