"""What is done to load balancing: a policy, an instance that takes no more connections, a rival's rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mininet.topo import Topo

from testbed import hosts, nodes
from testbed.experiment.actions import places
from testbed.experiment.run import Run
from testbed.rivals import nft_balancer
from testbed.rivals.nft_balancer import NftBalancer


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """A service gets a policy of the controller (docs/load-balancing.md), until the routers have the rule."""

    service: str
    policy: str

    def describe(self) -> str:
        return f"{self.service} gets the policy {self.policy}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_declared(topology, self.service, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        asked, network = run.now(), run.network
        network.controller_request("policy", service=self.service, policy=self.policy)
        prefixes = {nodes.ask(router, "resolve", service=self.service)["prefix"] for router in network.routers}

        def followed() -> bool:
            rules = [
                rule
                for router in network.routers
                for rule in network.controller_request("rules", node=router.name, service=self.service)["rules"]
                if rule["prefix"] in prefixes
            ]
            return bool(rules) and all(rule.get("policy", rule["selector"]) == self.policy for rule in rules)

        network.wait(f"the routers' rules follow {self.policy}", followed, log=network.logs / "controller.log")
        return {"at": run.now(), "asked": asked}


@dataclass(frozen=True, slots=True)
class Leave:
    """An instance of a service takes its name back and so gets no new connections; those that it has go on."""

    service: str
    host: str
    port: int = 80

    def describe(self) -> str:
        return f"{self.host} leaves {self.service}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_service(topology, self.service, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        host = run.network.serval_host(self.host)
        nodes.ask(host, "unbind", service=self.service, port=self.port)
        return {"at": run.now()}


@dataclass(frozen=True, slots=True)
class Balance:
    """The nft load balancer on a host sends new connections to these hosts, as soon as all of them listen.

    how     one of `testbed.rivals.nft_balancer.CHOICES`
    """

    host: str
    how: str
    servers: tuple[str, ...]
    port: int = 80

    def describe(self) -> str:
        return f"{self.host} balances over {', '.join(self.servers)}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        for host in (self.host, *self.servers):
            places.check_host(topology, host, self.describe())
        nft_balancer.ruleset(self.how, "192.0.2.1", self.port, self.servers)

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        servers, network = [run.network.find(server) for server in self.servers], run.network
        network.wait(
            f"{', '.join(self.servers)} listen on port {self.port}",
            lambda: all(hosts.run(server, ["ss", "-Hltn", f"sport = :{self.port}"]) for server in servers),
            log=network.logs,
        )
        addresses = [server.addresses()[0] for server in servers]
        NftBalancer(run.network.find(self.host), self.port, self.how).use(addresses)
        return {"at": run.now()}
