"""A connection of two real programs on which both send at once, until they are told to end: however long what happens
in the middle takes, there is data in flight.
"""

from __future__ import annotations

import sys

from tests.emulation.node_hosts import Host, wait_for

SIZE = 10_000_000

# Sends at least SIZE bytes, and until its input ends. Prints the SHA-256 and number of the bytes sent and received.
PEER = """
import hashlib, sys, threading, time, serval_node.socket as serval
kind, service, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
block = bytes(range(256)) * 256
latest = time.monotonic() + 100
told = threading.Event()
def listen():
    sys.stdin.read()
    told.set()
def say(what, digest, number):
    sys.stdout.write(f"{what} {digest.hexdigest()} {number}\\n")
    sys.stdout.flush()
def send(sock):
    digest, sent = hashlib.sha256(), 0
    while sent < size or not (told.is_set() or time.monotonic() > latest):
        number = sock.send(block)
        digest.update(block[:number])
        sent += number
        time.sleep(0.005)
    sock.shutdown(1)
    say("sent", digest, sent)
if kind == "serve":
    listener = serval.create_server(service)
    print("ready", flush=True)
    sock, _ = listener.accept()
else:
    sock = serval.create_connection(service)
threading.Thread(target=listen, daemon=True).start()
sender = threading.Thread(target=send, args=(sock,))
sender.start()
digest, got, told_of = hashlib.sha256(), 0, 0
while data := sock.recv(1 << 16):
    digest.update(data)
    got += len(data)
    if kind == "connect" and told_of < min(got * 100 // size, 100):  # no more than the pipe holds
        told_of = got * 100 // size
        print("got", got, flush=True)
sender.join()
say("received", digest, got)
"""


def _open(host: Host) -> list[str]:
    """Flows that could still move: also those whose programs have ended, until both ends know that they are closed."""
    return [row["state"] for row in host.ask("flows")["flows"] if row["state"] not in ("TIMEWAIT", "CLOSED")]


RUNNING: list[Transfer] = []


def end_all() -> None:
    """Kill what a failed test has left, so that the next one does not find its flows."""
    while RUNNING:
        transfer = RUNNING.pop()
        for process in (transfer.client, transfer.server):
            process.kill()
            process.wait()


class Transfer:
    """Both programs, each sending and receiving at least `size` bytes."""

    def __init__(self, client: Host, server: Host, size: int = SIZE) -> None:
        self.size = size
        for host in (client, server):
            wait_for("the flows of before to be over", lambda host=host: not _open(host))
        arguments, pipes = ("web.example", str(size)), {"stdin": -1, "stdout": -1, "text": True}
        self.server = server.popen(sys.executable, "-c", PEER, "serve", *arguments, **pipes)
        assert self.server.stdout is not None and self.server.stdout.readline() == "ready\n"
        wait_for("the rule", lambda: server.rules("web.example"))
        self.client = client.popen(sys.executable, "-c", PEER, "connect", *arguments, **pipes)
        assert self.client.stdout is not None
        RUNNING.append(self)

    def until(self, share: float) -> None:
        """Wait until the client has this share of `size`."""
        for line in self.client.stdout:
            if line.startswith("got") and int(line.split()[1]) >= share * self.size:
                return
        raise AssertionError(f"the client ended with {self.client.wait(5)}")

    def end(self) -> None:
        """Let both come to an end; each has received what the other has sent."""
        ends = (self.client, self.server)
        for process in ends:
            process.stdin.close()
        said = []
        for process in ends:
            lines = [line.split() for line in process.stdout.read().splitlines() if not line.startswith("got")]
            assert process.wait(60) == 0
            said.append({what: tuple(rest) for what, *rest in lines})
        client, server = said
        assert client["received"] == server["sent"] and server["received"] == client["sent"]
        RUNNING.remove(self)
        assert min(int(sent[1]) for sent in (client["sent"], server["sent"])) >= self.size
