"""Hosts on one switch: the smallest topology that Mininet and Serval's network can be compared on."""

from __future__ import annotations

from topologies.declarations import Declared

PROVIDER, PROVIDER_BLOCK = "example", 0x5E7A1E


class Star(Declared):
    """`hosts` hosts, the first one a service router, the others with a node each; Mininet alone ignores that."""

    def build(self, hosts: int = 50) -> None:
        switch = self.addSwitch("s1")
        for number in range(1, hosts + 1):
            role = {"role": "router", "serves": [PROVIDER]} if number == 1 else {"role": "host"}
            name = self.addHost(f"h{number}", ip=f"10.3.{number >> 8}.{number & 0xFF}/16", serval=role)
            self.addLink(name, switch)
        self.providers = {PROVIDER: PROVIDER_BLOCK}
