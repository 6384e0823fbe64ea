"""The server of the lab, an ordinary TCP server: says which host it is on, then sends back whatever comes."""

from __future__ import annotations

import socketserver
from pathlib import Path

PAGE = Path("/run/serval/www/index.html")
"""Where the testbed has put the host's name."""


class Greeter(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(PAGE.read_bytes())
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("0.0.0.0", 80), Greeter).serve_forever()
