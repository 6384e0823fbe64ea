"""An ad hoc network (slide 38): no service router, no controller, no name server; services are found by broadcast.

    ann --+
    ben --+-- s1
    cal --+    |
              dan ---- eve ---- fay

One link joins ann, ben, cal and dan; ben and cal serve web.example, as the slide's b and c do for a. Behind dan begins
a chain of hosts, each with its neighbours on a link of their own: they relay SYNs by broadcast, and the last one serves
far.example. Their kernels forward IP packets by static routes: only the search for a service floods.

Addresses: 10.9.0.N/24 on the first link, 10.9.1.0/24, 10.9.2.0/24 ... on those of the chain.
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
from topologies.parts import PROVIDER, PROVIDER_BLOCK, impairments, web, within

CLIENT, RELAY, ROUTER = "ann", "dan", "cleo"
INSTANCES = ("ben", "cal", "bea", "cid", "bob", "coy")
CHAIN = ("eve", "fay", "gus", "hal", "ida", "jon", "kim", "leo", "mia", "ned", "ona", "pam")
_RELAY_ADDRESS, _ROUTER_ADDRESS = 100, 200


class AdHocNetwork(Declared):
    """Hosts on one switch and a chain of relays behind one of them. Rates in Mbit/s, delays one way."""

    summary: ClassVar[str] = "hosts on one link and a chain of relays; no service router, no controller (slide 38)"
    parameters: ClassVar[Mapping[str, str]] = {
        "instances": f"hosts on the first link that serve web.example, 1 to {len(INSTANCES)} (2)",
        "chain": f"hosts in the chain behind {RELAY}, 0 to {len(CHAIN)} (2)",
        "hops": "how many links a SYN may cross, 1 to 19 (8)",
        "router": f"1: a service router, {ROUTER}, on the first link, which the hosts find by themselves (0)",
        "rate": "rate of every link, Mbit/s (100)",
        "delay": "one-way delay of each link of the chain (1ms; 0 for none)",
        "loss": "loss on these links, percent (0)",
    }
    has_controller: ClassVar[bool] = False

    def build(
        self,
        instances: int = 2,
        chain: int = 2,
        hops: int = 8,
        router: int = 0,
        rate: float = 100,
        delay: str = "1ms",
        loss: float = 0,
    ) -> None:
        instances = within("instances", instances, 1, len(INSTANCES))
        chain = within("chain", chain, 0, len(CHAIN))
        self._options = {"role": "host", "adhoc": True, "adhoc_hops": within("hops", hops, 1, 19), "find_router": True}
        self._link = {"bw": float(rate)}
        names = INSTANCES[:instances]
        switch = self.addSwitch("s1")
        for number, name in enumerate((CLIENT, *names), 1):
            self._add_host(name, number, switch)
        if within("router", router, 0, 1):
            self._add_host(ROUTER, _ROUTER_ADDRESS, switch, role="router", serves=[PROVIDER], find_router=False)
        self._add_chain(switch, (RELAY, *CHAIN[:chain]), impairments(delay, loss))
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = [web(*names), web(CHAIN[chain - 1] if chain else RELAY, label="far")]

    def _add_host(self, name: str, number: int, switch: str, **serval: object) -> None:
        gateway = f"via 10.9.0.{_RELAY_ADDRESS}"
        self.addHost(name, ip=f"10.9.0.{number}/24", defaultRoute=gateway, serval={**self._options, **serval})
        self.addLink(name, switch, **self._link)

    def _add_chain(self, switch: str, names: tuple[str, ...], impairment: Mapping[str, object]) -> None:
        """10.9.N.1 is nearer to the switch: it has routes to what is behind, and 10.9.N.2 a default route to it."""
        for number, name in enumerate(names):
            behind = [(f"10.9.{link}.0/24", f"10.9.{number + 1}.2") for link in range(number + 2, len(names))]
            self.addHost(
                name,
                ip=f"10.9.0.{_RELAY_ADDRESS}/24" if number == 0 else f"10.9.{number}.2/24",
                defaultRoute=None if number == 0 else f"via 10.9.{number}.1",
                routes=behind,
                ip_forward=True,
                serval={**self._options, "role": "host", "adhoc_relay": True},
            )
            if number == 0:
                self.addLink(name, switch, **self._link)
            else:
                near = {"ip": f"10.9.{number}.1/24"}
                self.addLink(name, names[number - 1], params2=near, **self._link, **impairment)


topos = {"adhoc": AdHocNetwork}
