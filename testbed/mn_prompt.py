"""Mininet's prompt for `testbed mn`, where a list of commands on standard input does what a person's typing does.

Mininet hands what comes on standard input while a command runs to that command. That is right for somebody at a
terminal; of a file or a pipe the command would swallow the lines that follow it. And a person sees when a service that
was started in the background is there; the next line of a list is there at once, so the prompt waits for the service.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from mininet.log import warn

from testbed import nodes
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.mn_network import MnNetwork
from testbed.network import POLL_SECONDS
from testbed.prompt import HostPrompt

SERVED_SECONDS = 5.0
HELP = """
With --host serval, in any host:
  h1 serval bind web.example &                      serve a name (echoes what comes)
  h2 serval connect web.example --count 4           which instance answers each connect
  h1 serval table | flows | stat | names            what its node knows
  servicectl services                               what the service controller knows
"""


def service_started(words: list[str]) -> str | None:
    """The service that a prompt's line begins to serve in the background, None for any other line."""
    if words[-1:] != ["&"] or words[1:2] != ["serval"]:
        return None
    if words[2:3] == ["bind"]:
        values = {at + 1 for at, word in enumerate(words) if word == "--answer"}
        names = [word for at, word in enumerate(words[:-1]) if at > 2 and at not in values and not word.startswith("-")]
        return names[0] if names else None
    if words[2:3] == ["run"] and "--service" in words[:-2]:
        return words[words.index("--service") + 1]
    return None


class MnPrompt(HostPrompt):
    """Mininet's own prompt."""

    mn: MnNetwork
    helpStr = HostPrompt.helpStr + HELP

    def __init__(self, mininet: MnNetwork, **options: Any) -> None:
        self._piped = not sys.stdin.isatty()
        if not self._piped:
            super().__init__(mininet, **options)
            return
        # Lines are read by input(); this is only what running commands are given, and nothing ever comes of it.
        reader, writer = os.pipe()
        try:
            with os.fdopen(reader) as silent:
                super().__init__(mininet, **{"stdin": silent, **options})
        finally:
            os.close(writer)

    def precmd(self, line: str) -> str:
        """Shows the line behind the prompt where no terminal has."""
        if self._piped and self.inputFile is None:
            print("" if line == "EOF" else line, flush=True)
        return super().precmd(line)

    def default(self, line: str) -> None:
        super().default(line)
        words = line.split()
        service = service_started(words)
        if service is None or words[0] not in self.mn:
            return
        host = self.mn[words[0]]
        if isinstance(host, ServalHost):
            try:
                self._await(service, host)
            except TestbedError as error:
                warn(f"*** {error}\n")

    def _await(self, service: str, host: ServalHost) -> None:
        """Until the host and every service router have the service's rule; says so when they do not in time."""
        routers = [item for item in self.mn.serval_hosts if item.options["role"] == "router" and item is not host]
        deadline = time.monotonic() + SERVED_SECONDS
        prefix = nodes.ask(host, "resolve", service=service)["prefix"]
        for node in (host, *routers):
            while not _leads_to(node, prefix, host):
                if time.monotonic() > deadline:
                    warn(f"*** {node.name} has no rule for {service} on {host.name} after {SERVED_SECONDS:g} s\n")
                    return
                time.sleep(POLL_SECONDS)


def _leads_to(node: ServalHost, prefix: str, host: ServalHost) -> bool:
    targets = [
        target
        for entry in nodes.ask(node, "table")["entries"]
        if entry["prefix"] == prefix
        for target in entry["targets"]
    ]
    if node is host:
        return any(target["action"] == "demux" for target in targets)
    return any(target["action"] == "forward" and target["address"] == host.IP() for target in targets)
