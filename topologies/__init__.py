"""Emulated networks, each a small parametrised Mininet `Topo` in a module of its own.

`TOPOLOGIES` names them for `python -m testbed run NAME`. A module also defines `topos`, so that
`mn --custom topologies/datacenter.py --topo datacenter` builds the same network without Serval.
"""

from __future__ import annotations

from collections.abc import Mapping

from topologies.ad_hoc import AdHocNetwork
from topologies.datacenter import Datacenter
from topologies.declarations import Declared, TopologyError
from topologies.mobile_client import MobileClient
from topologies.multihomed_server import MultihomedServer
from topologies.replicas import Replicas
from topologies.two_hosts import TwoHosts
from topologies.vm_migration import VmMigration

TOPOLOGIES: Mapping[str, type[Declared]] = {
    "two-hosts": TwoHosts,
    "datacenter": Datacenter,
    "replicas": Replicas,
    "multihomed-server": MultihomedServer,
    "mobile-client": MobileClient,
    "vm-migration": VmMigration,
    "adhoc": AdHocNetwork,
}


def find(name: str) -> type[Declared]:
    """The topology class called `name`; raises TopologyError that lists the known ones."""
    try:
        return TOPOLOGIES[name]
    except KeyError:
        raise TopologyError(f"no topology {name!r}; there are: {', '.join(sorted(TOPOLOGIES))}") from None
