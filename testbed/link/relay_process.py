"""The relay of one link from outside: its process, and the requests to it."""

from __future__ import annotations

import itertools
import json
import platform
import re
import socket
import sys
from pathlib import Path
from typing import Any

from testbed import processes, sandbox
from testbed.errors import TestbedError
from testbed.link.direction import settings_of
from testbed.link.shape import Shape

RELAY_DIRECTORY = Path("/run/testbed/relays")
ANSWER_SECONDS = 3.0
_UDP_SEGMENTS_SINCE = (6, 2)
_EXACT = 1e-9  # a number's way through JSON and percent and back


def carries_udp_segments(release: str | None = None) -> bool:
    """Whether the kernel gives offloaded segments of UDP to a packet socket (PACKET_VNET_HDR); older ones drop them."""
    found = re.match(r"(\d+)\.(\d+)", platform.release() if release is None else release)
    return found is not None and (int(found[1]), int(found[2])) >= _UDP_SEGMENTS_SINCE


class LinkRelay:
    """The relay process of one link, and its control socket. The constructor does not wait for it."""

    _numbers = itertools.count(1)

    def __init__(
        self, name: str, ends: tuple[str, str], shapes: tuple[Shape, Shape], seed: int | None, logs: Path
    ) -> None:
        self.name = name
        self._path = RELAY_DIRECTORY / f"{next(self._numbers)}.sock"
        argv = [sys.executable, "-m", "testbed.link.relay", *ends, "--control", str(self._path)]
        for way, shape in zip(("there", "back"), shapes, strict=True):
            argv += [f"--{way}", json.dumps(settings_of(shape))]
        argv += ["--seed", str(seed)] if seed is not None else []
        log = logs / f"relay-{ends[0]}.log"
        self._daemon = processes.start(f"relay of {name}", argv, log=log, cwd=sandbox.ROOT)

    def wait_ready(self) -> None:
        """Wait until it passes frames on; raises TestbedError."""
        self._daemon.wait_ready(lambda: self._daemon.printed().endswith("ready\n"))

    def set(self, direction: int, shape: Shape) -> None:
        """Have one direction (0: from the first end) do what a shape asks of it; read back. Raises TestbedError."""
        wanted = settings_of(shape)
        shown = self.request("set", direction=direction, **wanted)["directions"][direction]
        for name, value in wanted.items():
            if abs(shown[name] - value) > _EXACT:
                raise TestbedError(f"the relay of {self.name}: asked for {name} {value}, it has {shown[name]}")

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request to the relay (see testbed.link.relay); raises TestbedError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(ANSWER_SECONDS)
            try:
                channel.connect(str(self._path))
                channel.send(json.dumps({"op": op, **fields}).encode())
                answer = json.loads(channel.recv(65536))
            except (OSError, ValueError) as error:
                raise TestbedError(f"the relay of {self.name}: {error}", f"its log is {self._daemon.log}") from None
        if not answer.pop("ok"):
            raise TestbedError(f"the relay of {self.name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        self._daemon.stop()
        self._path.unlink(missing_ok=True)
