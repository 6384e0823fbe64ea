"""Datagrams by name: `serve NAME` answers whoever asks, `ask NAME` asks once; `plain PORT` knows nothing of Serval."""

import socket
import sys

from serval_node import socket as serval

what, name = sys.argv[1:]
if what == "plain":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("0.0.0.0", int(name)))
        while True:
            plain.sendto(*plain.recvfrom(2048))
elif what == "serve":
    with serval.datagram_socket(name) as sock:
        while True:
            data, sender = sock.recvfrom(2048)  # sender: the serviceID of who asks
            sock.sendto(data.upper(), sender)
else:
    with serval.datagram_socket() as sock:
        sock.settimeout(0.5)
        for _ in range(20):  # datagrams may get lost
            sock.sendto(b"hello", name)
            try:
                print(f"{name}: {sock.recvfrom(2048)[0].decode()}")
                sys.exit()
            except TimeoutError:
                continue
        sys.exit(f"{name} does not answer")
