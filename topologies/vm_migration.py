"""Hosts in subnets of their own behind a router, a virtual machine on the first of them, and a client (slide 47).

    ann ---- r ---- b1 --+-- hal       host 1, 10.2.1.0/24
             |           +-- vic       the VM, 10.2.1.10
             +----- b2 ----- ian       host 2, 10.2.2.0/24
             |
             cleo                      service router

b1 and b2 are the bridges inside hal and ian, drawn beside them: what is plugged in there shares its host's link to r.
vic moves to another host by being plugged in at that one's bridge; there it gets another address. Here it is a VM in
its light form, a group of processes with kernel, addresses and Serval node of its own (docs/mobility.md).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import ClassVar

if "__file__" not in globals():
    # `mn --custom` runs this file by itself, and under sudo nothing else leads to the package around it.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from topologies.declarations import Bridge, Declared, IpRouter
from topologies.parts import PROVIDER, PROVIDER_BLOCK, bulk, impairments, web, within

CLIENT, ROUTER, SERVICE_ROUTER, VM = "ann", "r", "cleo", "vic"
MACHINES = ("hal", "ian", "jon", "kim")
VM_NUMBER = 10


def place(host: str) -> tuple[str, str]:
    """The address that the VM has on a host, with its prefix length, and the gateway there."""
    subnet = f"10.2.{MACHINES.index(host) + 1}"
    return f"{subnet}.{VM_NUMBER}/24", f"{subnet}.254"


class VmMigration(Declared):
    """A client, hosts in subnets of their own, a VM. Rates in Mbit/s, delays one way."""

    summary: ClassVar[str] = "hosts in different subnets, a virtual machine that moves, and a client (slide 47)"
    parameters: ClassVar[Mapping[str, str]] = {
        "hosts": f"hosts that the VM can be on, each in its own subnet, 2 to {len(MACHINES)} (2)",
        "rate": "rate of each host's link and the client's, Mbit/s (200)",
        "delay": "one-way delay of each host's link (0 for none, which is the default)",
        "loss": "loss on each host's link, percent (0)",
        "mtu": "of all links; a real VM sends more than 25 Mbit/s with 9000 only (1500)",
        "impairable": "1: delay, loss and black holes may come later too (0)",
        "memory": "the VM's memory, MB: with dirty and rate it says how long the VM stands still (128)",
        "dirty": "memory that it writes anew, MB/s (5)",
        "standstill": "how long it stands still, seconds (0: as these three say)",
        "light": "1: the VM is there in its light form; 0: none is, for one of the real form (1)",
    }

    def build(
        self,
        hosts: int = 2,
        rate: float = 200,
        delay: str = "0",
        loss: float = 0,
        mtu: int = 1500,
        impairable: int = 0,
        memory: float = 128,
        dirty: float = 5,
        standstill: float = 0,
        light: int = 1,
    ) -> None:
        self._mtu = within("mtu", mtu, 576, 9216)
        self.addHost(ROUTER, cls=IpRouter, ip=None)
        self._add(CLIENT, "10.1.0", {"role": "host"}, bw=float(rate))
        self._add(SERVICE_ROUTER, "10.3.0", {"role": "router", "serves": [PROVIDER]}, bw=float(rate))
        for number, name in enumerate(MACHINES[: within("hosts", hosts, 2, len(MACHINES))], 1):
            bridge, subnet = self.addSwitch(f"b{number}", cls=Bridge), f"10.2.{number}"
            shape = {"bw": float(rate), "mtu": mtu, **impairments(delay, loss, impairable)}
            self.addLink(bridge, ROUTER, params2={"ip": f"{subnet}.254/24"}, **shape)
            self.addHost(name, ip=f"{subnet}.1/24", defaultRoute=f"via {subnet}.254")
            self.addLink(name, bridge, mtu=mtu)
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        if within("light", light, 0, 1):
            model = {"memory": float(memory), "dirty": float(dirty), "rate": float(rate)}
            self._add_vm({"on": MACHINES[0], **model, "standstill": float(standstill)})

    def _add_vm(self, vm: Mapping[str, object]) -> None:
        address, gateway = place(MACHINES[0])
        self.addHost(VM, ip=address, defaultRoute=f"via {gateway}", serval={"role": "host"}, vm=dict(vm))
        self.addLink(VM, "b1", mtu=self._mtu)
        self.services = [web(VM), bulk(VM)]

    def _add(self, name: str, subnet: str, serval: Mapping[str, object], **link: object) -> None:
        self.addHost(name, ip=f"{subnet}.1/24", defaultRoute=f"via {subnet}.254", serval=dict(serval))
        self.addLink(name, ROUTER, params2={"ip": f"{subnet}.254/24"}, mtu=self._mtu, **link)


topos = {"vm-migration": VmMigration}
