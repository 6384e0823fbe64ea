"""`serval connect --udp`: lines of standard input as datagrams to a service, its answers to standard output."""

from __future__ import annotations

import sys

from serval_node import socket as serval
from serval_node.cli.errors import CommandError

_LARGEST = 1 << 16
# So many may be without an answer: the node holds 32 until the flow is open, and nothing repeats a lost one.
_UNANSWERED = 16


def netcat(name: str, timeout: float) -> int:
    """Send each line by one flow and print as many answers; raises CommandError when some are missing at the end."""
    with _connected(name) as sock:
        sent = answered = 0
        try:
            for line in sys.stdin.buffer:
                sock.send(line.rstrip(b"\n"))
                sent += 1
                if sent - answered > _UNANSWERED:
                    _print_answer(sock, timeout)
                    answered += 1
            while answered < sent:
                _print_answer(sock, timeout)
                answered += 1
        except TimeoutError:
            raise CommandError(f"{name}: {answered} of {sent} answers; none for {timeout:g} s") from None
        except ConnectionRefusedError:
            raise CommandError(f"nobody serves {name} with datagrams") from None
        except BrokenPipeError:
            raise  # whoever reads our output has gone: the caller's business
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}") from None
    return 0


def _connected(name: str) -> serval.DatagramSocket:
    try:
        sock = serval.datagram_socket()
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None
    try:
        sock.connect(name)
    except OSError as error:
        sock.close()
        raise CommandError(error.strerror or str(error)) from None
    return sock


def _print_answer(sock: serval.DatagramSocket, timeout: float) -> None:
    sock.settimeout(timeout)
    data = sock.recv(_LARGEST)
    sock.settimeout(None)
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()
