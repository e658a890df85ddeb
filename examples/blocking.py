"""The same client for code that blocks: scripts, notebooks, Django, Flask."""

from collections.abc import Iterator

import loom

app = loom.App()


@app.actor
def squares(n: int) -> Iterator[int]:  # a plain generator runs in a thread
    for i in range(n):
        yield i * i


def main() -> None:
    with loom.connect_sync("memory://", app=app, worker=True) as client:
        with client.stream(squares, 5) as run:
            for value in run.values():
                print(value)


if __name__ == "__main__":
    main()
