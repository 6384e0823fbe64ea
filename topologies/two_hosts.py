"""Two hosts on one wire: a client and a server, nothing between them. The smallest network that Serval can be seen in.

    ann ------------------------ dan
        10.1.0.1       10.1.0.2

dan serves, and is the service router too: its rule for a name of example is what ann's first packet meets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import ClassVar

if "__file__" not in globals():
    # `mn --custom` runs this file by itself, and under sudo nothing else leads to the package around it.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from topologies.declarations import Declared
from topologies.parts import PROVIDER, PROVIDER_BLOCK, bulk, impairments, web

CLIENT, SERVER = "ann", "dan"


class TwoHosts(Declared):
    """One link between a client and a server. Rate in Mbit/s, delay one way."""

    summary: ClassVar[str] = "a client and a server on one wire"
    parameters: ClassVar[Mapping[str, str]] = {
        "rate": "rate of the link, Mbit/s (100)",
        "delay": "its one-way delay (0 for none, which is the default)",
        "loss": "loss on it, percent (0)",
        "impairable": "1: delay, loss and black holes may come later too (0)",
    }

    def build(self, rate: float = 100, delay: str = "0", loss: float = 0, impairable: int = 0) -> None:
        self.addHost(CLIENT, ip="10.1.0.1/24", serval={"role": "host"})
        self.addHost(SERVER, ip="10.1.0.2/24", serval={"role": "router", "serves": [PROVIDER]})
        self.addLink(CLIENT, SERVER, bw=float(rate), **impairments(delay, loss, impairable))
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = [web(SERVER), bulk(SERVER)]


topos = {"two-hosts": TwoHosts}
