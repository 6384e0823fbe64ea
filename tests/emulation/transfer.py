"""A connection of two real programs on which both send at once, slowly enough for something to happen in the middle."""

from __future__ import annotations

import hashlib
import sys

from tests.emulation.node_hosts import Host, wait_for

SIZE = 25_000_000

# Sends SIZE bytes each way at once and prints the SHA-256 of what it got.
PEER = """
import hashlib, sys, threading, time, serval_node.socket as serval
kind, service, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
block = bytes(range(256)) * 256
def send(sock):
    left = size
    while left:
        left -= sock.send(block[:left] if left < len(block) else block)
        time.sleep(0.005)  # long enough for a move in the middle
    sock.shutdown(1)
if kind == "serve":
    listener = serval.create_server(service)
    print("ready", flush=True)
    sock, _ = listener.accept()
else:
    sock = serval.create_connection(service)
sender = threading.Thread(target=send, args=(sock,))
sender.start()
digest, got = hashlib.sha256(), 0
while data := sock.recv(1 << 16):
    digest.update(data)
    got += len(data)
    if kind == "connect":
        print("got", got, flush=True)
sender.join()
print("sum", digest.hexdigest(), got, flush=True)
"""


def expected(size: int) -> str:
    block = bytes(range(256)) * 256
    return hashlib.sha256((block * (size // len(block) + 1))[:size]).hexdigest()


class Transfer:
    """Both programs, each sending and receiving."""

    def __init__(self, client: Host, server: Host, size: int = SIZE) -> None:
        self.size = size
        self.server = server.popen(sys.executable, "-c", PEER, "serve", "web.example", str(size), stdout=-1, text=True)
        assert self.server.stdout is not None and self.server.stdout.readline() == "ready\n"
        wait_for("the rule", lambda: server.rules("web.example"))
        self.client = client.popen(
            sys.executable, "-c", PEER, "connect", "web.example", str(size), stdout=-1, text=True
        )
        assert self.client.stdout is not None

    def until(self, share: float) -> None:
        """Wait until the client has this share of its bytes."""
        for line in self.client.stdout:
            if line.startswith("got") and int(line.split()[1]) >= share * self.size:
                return
        raise AssertionError(f"the client ended with {self.client.wait(5)}")

    def end(self) -> None:
        for process in (self.client, self.server):
            last = process.stdout.read().split("sum ")[-1].split()
            assert process.wait(60) == 0
            assert last == [expected(self.size), str(self.size)]
