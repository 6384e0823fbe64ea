"""Runs in ann: connects again and again with a client class of the work, and says each time whom it reached.

    client.py WORK CLASS ADDRESS     ADDRESS is what a look-up of the name gives; CLASS may be ByName, which is ours

Prints `ready`, then for each line on standard input one line of JSON: {"host": "dan"} or {"error": "..."}. A connection
that is asked for by the line `keep` stays open, and `echo` sends a line over it and back.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

from labs.grading import load


class ByName:
    """What the checks use that are not about the client."""

    def connect(self) -> socket.socket:
        return socket.create_connection(("web.example", 80), timeout=2)


def main() -> None:
    work, name, address = sys.argv[1:]
    client = ByName() if name == ByName.__name__ else getattr(load(Path(work), [name]), name)(lambda _name: address)
    print("ready", flush=True)
    kept: Any = None
    for line in sys.stdin:
        try:
            if line == "echo\n":
                kept.write(b"still there\n")
                kept.flush()
                told = {"echo": kept.readline().decode().strip()}
            else:
                connection = client.connect()
                if connection is None:
                    raise TypeError(f"{name}.connect() returned None and no socket")
                stream = connection.makefile("rwb")
                told = {"host": stream.readline().decode().strip()}
                if line == "keep\n":
                    kept = stream
                else:
                    stream.close()
                    connection.close()
        except Exception as error:  # noqa: BLE001 - a learner's code; the grader tells what it raised
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
