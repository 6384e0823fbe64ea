"""The far end of one stream: `python -m testbed.traffic.far PATH PORT PROTOCOL CONGESTION PROGRESS`.

It listens on PORT, over TCP (PROTOCOL 0) or MPTCP (262), and does what the near end's first line says. A new connection
goes on with the stream and ends the one before. On the unix socket PATH it takes the orders of `testbed.traffic.ends`;
where PATH and PROGRESS are "-" there is nobody to give any (in a virtual machine): what the near end saw is then all.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from functools import partial

from testbed.traffic import flow
from testbed.traffic.ends import End
from testbed.traffic.orders import serve_orders
from testbed.traffic.pattern import Source

DOWN = "down"


class Far(End):
    """All connections of the stream."""

    def __init__(self, listener: socket.socket, congestion: str, progress: str | None) -> None:
        super().__init__(progress)
        self._listener, self._congestion = listener, congestion

    def serve(self) -> None:
        """Accept for ever; one connection at a time carries the stream."""
        while True:
            connection, _ = self._listener.accept()
            if self.connection is not None and self.thread is not None:
                flow.give_up(self.connection)
                self.thread.join()
            self.connection = connection
            self.thread = threading.Thread(target=self._carry, args=(connection,), daemon=True)
            self.thread.start()

    def _carry(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._talk(connection)
            except (OSError, ValueError) as error:  # the near end says what it made of it
                self.fail(error)

    def _talk(self, connection: socket.socket) -> None:
        wanted = flow.read_line(connection)
        congestion = flow.pin(connection, self._congestion)
        flow.write_line(connection, {"offset": self.verifier.position, "congestion": congestion})
        elapsed = wanted["elapsed"]
        if elapsed is None:
            flow.read_line(connection)
            elapsed = 0.0
        begun = time.monotonic() - elapsed
        if wanted["direction"] == DOWN:
            stopped = partial(flow.told_to_stop, connection)
            source = Source(wanted["offset"])
            flow.send(connection, source, self.samples, rate=wanted["rate"], begun=begun, stopped=stopped)
            flow.await_end(connection)
            return
        if wanted["acknowledge"]:
            flow.acknowledging(connection, self.verifier)
        flow.receive(connection, self.verifier, self.samples)
        if not self.closed:
            self.ended = time.monotonic()


def main() -> None:
    path, port, protocol, congestion, progress = sys.argv[1:]
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(protocol))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", int(port)))
    listener.listen()
    gc.freeze()
    gc.disable()  # a collection is milliseconds; what a stream makes is gone with its references
    far = Far(listener, congestion, None if progress == "-" else progress)
    threading.Thread(target=far.serve, daemon=True).start()
    if path == "-":
        print("ready", flush=True)
        threading.Event().wait()
    serve_orders(path, far.operations())


if __name__ == "__main__":
    main()
