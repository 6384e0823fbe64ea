"""The short tour of a run without a terminal: shows what the network does, and checks each step that it shows.

A step prints what a person would type, what came out, and PASS or FAIL with the reason. It uses the topology's first
client, its service routers and its first two services: one replicated, one for bulk data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from testbed import hosts, nodes
from testbed.hosts import ServalHost
from testbed.iperf import received_rate
from testbed.network import Say, ServalNetwork
from testbed.tour_steps import COMMAND_SECONDS, Step, StepFailed, run_steps, show
from topologies.declarations import Service

CONNECTS = 24
CONNECTS_AFTER = 10
BULK_SECONDS = 5
"""Long enough that slow start, which is in the rate that the receiver saw, takes little of it."""
GOOD_SHARE = 0.8
"""Below this share of the asked rate the bulk step says so: this is a tour and no measurement, and the machine may have
other things to do. It fails when no data comes, or when it comes by another way."""

STRAY_BYTES = 20_000
"""What may come to a service router during a bulk transfer: first packets, ARP, switches' probes; never the data."""


class Tour:
    """Runs the steps on a network whose services are up. `rate_asked` in Mbit/s of TCP payload, None: unlimited."""

    def __init__(self, net: ServalNetwork, say: Say, *, rate_asked: float | None) -> None:
        self._net = net
        self._say = say
        self._rate_asked = rate_asked
        self._client = next(host for host in net.serval_hosts if host.options["role"] == "host")
        self._web, self._bulk = _replicated(net.topo.services), _single(net.topo.services)
        self._connects = 0

    def run(self) -> int:
        """All steps, also after one that failed; returns the exit status: 0 when all passed."""
        steps: list[Step] = [
            (f"an unmodified program reaches {self._web.name}", self._curl),
            (f"{CONNECTS} connects are split over the instances", self._split),
            ("one connect, step by step", self._trace),
            ("the tables", self._tables),
            (f"bulk data to {self._bulk.name} goes directly, not through the service router", self._transfer),
            (f"an instance of {self._web.name} is killed, and new connects go to the others", self._kill),
        ]
        return run_steps(steps, self._say)

    # -- the steps: each returns what it has seen to be right, or raises

    def _curl(self) -> str:
        body = self._show(self._client, "curl", "--silent", "--show-error", f"http://{self._web.name}/")
        self._connects += 1
        host = next((host for host in self._web.hosts if f" {host}," in body), None)
        if host is None:
            raise StepFailed(f"the answer names none of the instances {', '.join(self._web.hosts)}")
        return f"{host} answered {self._client.name}, which knows only the service's name"

    def _split(self) -> str:
        split = self._connect(CONNECTS)
        if len(split) < min(2, len(self._web.hosts)):
            raise StepFailed(f"all {CONNECTS} connects went to {', '.join(split)}")
        shares = ", ".join(f"{host} {count}" for host, count in sorted(split.items()))
        return f"{CONNECTS} connects, {len(split)} of {len(self._web.hosts)} instances: {shares}"

    def _trace(self) -> str:
        shown = self._show(self._client, "serval", "trace", self._web.name)
        self._connects += 1
        router = self._net.routers[0].name
        for step in ("SYN {", f"{router} -> ", "SYN-ACK {", "directly"):
            if step not in shown:
                raise StepFailed(f"the trace lacks {step!r}")
        return f"SYN to {router}, rewritten to an instance; SYN-ACK and data directly"

    def _tables(self) -> str:
        router, instance = self._net.routers[0], self._net.serval_host(self._web.hosts[0])
        for host in (self._client, router, instance):
            self._show(host, "serval", "table")
        self._show(self._client, "serval", "flows", at_most=6)
        provider = self._web.name.rpartition(".")[2]
        self._expect_rule(self._client, f"{self._net.topo.providers[provider]:06x}/24", "forward")
        self._expect_rule(instance, self._prefix(instance, self._web), "demux")
        entry = self._expect_rule(router, self._prefix(router, self._web), "forward")
        addresses = {target["address"] for target in entry["targets"]}
        if addresses != {self._net.find(name).addresses()[0] for name in self._web.hosts}:
            raise StepFailed(f"{router.name} forwards {self._web.name} to {', '.join(sorted(addresses))}")
        if entry["packets"] < self._connects:
            raise StepFailed(f"{router.name} counted {entry['packets']} first packets of {self._connects} connects")
        return (
            f"{self._client.name} knows one block, {router.name} the {len(addresses)} instances;"
            f" {router.name} saw {entry['packets']} packets of {self._connects} connects"
        )

    def _transfer(self) -> str:
        # iperf3 closes its listening socket after each test, so the instance comes and goes.
        self._net.wait_service(self._bulk.name, self._bulk.hosts)
        router = self._net.routers[0]
        before = _received(router)
        words = ["iperf3", "--client", self._bulk.name, "--time", str(BULK_SECONDS)]
        self._say(f"  {self._client.name}> {' '.join(words)}")
        result = json.loads(hosts.run(self._client, [*words, "--json"], timeout=COMMAND_SECONDS))
        passed = _received(router) - before
        total, rate = result["end"]["sum_received"]["bytes"], received_rate(result)
        self._say(f"    {self._bulk.hosts[0]} received {total / 1e6:.1f} MB; {rate:.1f} Mbit/s, slow start included")
        if total == 0:
            raise StepFailed("no data came")
        if self._rate_asked is not None and rate < GOOD_SHARE * self._rate_asked:
            self._say("    less than the links leave; is this machine busy with other things?")
        if passed > STRAY_BYTES:
            raise StepFailed(f"{passed} bytes came to {router.name} meanwhile")
        of = "" if self._rate_asked is None else f" ({100 * rate / self._rate_asked:.0f} % of what the links leave)"
        return f"{rate:.1f} Mbit/s{of}; meanwhile {passed} bytes came to {router.name}"

    def _kill(self) -> str:
        victim = next(item for item in self._net.instances if item.service is self._web and item.alive)
        others = [name for name in self._web.hosts if name != victim.host.name]
        self._say(f"  {victim.host.name}> kill -9 {victim.kill()}    (the server of {self._web.name})")
        took = self._net.wait_service(self._web.name, others)
        self._show(self._net.routers[0], "serval", "table")
        if not others:
            return f"the rule was gone {took * 1e3:.0f} ms later; there was one instance only"
        split = self._connect(CONNECTS_AFTER)
        if victim.host.name in split:
            raise StepFailed(f"{split[victim.host.name]} connects went to {victim.host.name}")
        return f"withdrawn after {took * 1e3:.0f} ms; {CONNECTS_AFTER} of {CONNECTS_AFTER} new connects reached others"

    # -- what the steps are made of

    def _show(self, host: ServalHost, *words: str, at_most: int = 40) -> str:
        return show(host, *words, say=self._say, at_most=at_most)

    def _connect(self, count: int) -> dict[str, int]:
        """Connects by name; how many reached which host. Raises StepFailed when one failed."""
        words = ["serval", "connect", self._web.name, "--count", str(count)]
        self._say(f"  {self._client.name}> {' '.join(words)}")
        result = json.loads(hosts.run(self._client, ["sh", "-c", '"$@" || true', "-", *words, "--json"], timeout=60))
        self._connects += count
        split: dict[str, int] = result["split"]
        times = sorted(item["seconds"] * 1e3 for item in result["connects"] if "seconds" in item)
        if result["failed"] or not times:
            reason = next((item["error"] for item in result["connects"] if "error" in item), "no reason given")
            raise StepFailed(f"{result['failed']} of {count} connects failed: {reason}")
        for host, number in sorted(split.items()):
            self._say(f"    {host:8} {number:3}  {'#' * number}")
        self._say(f"    connect() took {times[len(times) // 2]:.1f} ms (median), {times[-1]:.1f} ms at most")
        return split

    def _prefix(self, host: ServalHost, service: Service) -> str:
        return nodes.ask(host, "resolve", service=service.name)["prefix"]

    def _expect_rule(self, host: ServalHost, prefix: str, action: str) -> dict[str, Any]:
        for entry in nodes.ask(host, "table")["entries"]:
            if entry["prefix"].removeprefix("0x") == prefix.removeprefix("0x"):
                if {target["action"] for target in entry["targets"]} != {action}:
                    raise StepFailed(f"{host.name}'s rule for {entry['service']} is no {action.upper()}")
                return entry
        raise StepFailed(f"{host.name} has no rule for {prefix}")


def _replicated(services: Sequence[Service]) -> Service:
    return max((service for service in services if service.page), key=lambda service: len(service.hosts))


def _single(services: Sequence[Service]) -> Service:
    return next(service for service in services if len(service.hosts) == 1 and not service.page)


def _received(host: ServalHost) -> int:
    """Bytes that came in over the host's links."""
    shown = hosts.run(host, ["cat", *(f"/sys/class/net/{item.name}/statistics/rx_bytes" for item in host.intfList())])
    return sum(int(line) for line in shown.split())
