"""What a SYN costs at a service router, beside the same packet through the kernel's IP forwarding on the same host.

ann ------------ cleo ------------ dan        10.63.1.0/24 and 10.63.2.0/24, veth pairs without a rate

serval    the SYN's destination is cleo, whose rule says FORWARD to dan: resolved, noted in SOURCE, rewritten in Python
ip        the SYN's destination is dan, and cleo's kernel forwards it
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from testbed.measure.plan import DIFFERENCE, LOWER, Benchmark, Comparison, Figure, Reading, Settings

SERVAL, IP = "serval", "ip"
SERVICE = "syn.example"
PROVIDERS = {"example": 0x5E7A1E}
CLIENT, ROUTER, BEHIND, SERVER = "10.63.1.1", "10.63.1.254", "10.63.2.254", "10.63.2.1"


class Routing:
    """The bed: who sends, who counts, and the service router between them."""

    def __init__(self, sender: Any, counter: Any, service: str, parameters: Mapping[str, Any]) -> None:
        self._sender, self._counter, self._service, self._parameters = sender, counter, service, parameters

    def facts(self) -> Mapping[str, Any]:
        return {"link": "veth pairs without a rate", "syns": self._parameters["count"]}

    def measure(self, variant: str) -> Reading:
        destination = ROUTER if variant == SERVAL else SERVER
        lone, pause = self._parameters["lone"], self._parameters["pause"]
        sent, came = self._run("alone", destination, lone, pause=pause)
        alone = [arrived - left for left, arrived in zip(sent["times"], came, strict=True)]
        _, came = self._run("burst", destination, self._parameters["count"])
        each = (came[-1] - came[0]) / (len(came) - 1)
        metrics = {"alone": statistics.median(alone), "each": each, "rate": 1 / each}
        return Reading(metrics, {"alone": alone})

    def _run(self, op: str, destination: str, count: int, **more: Any) -> tuple[dict[str, Any], list[float]]:
        self._counter.give("collect", count=count)
        self._counter.answer()  # it counts from now on
        sent = self._sender.order(
            op, source=CLIENT, destination=destination, service=self._service, count=count, **more
        )
        return sent, self._counter.answer()["times"]


@contextmanager
def bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Routing]:
    # Mininet is needed only here: the list of benchmarks loads without it.
    from mininet.net import Mininet

    from testbed import hosts, nodes
    from testbed.hosts import PlainHost, ServalHost
    from testbed.link.emulated import EmulatedLink
    from testbed.traffic.programs import Worker

    undo: list[Callable[[], object]] = []
    try:
        client = PlainHost("ann", defaultRoute=f"via {ROUTER}")
        router = ServalHost("cleo", serval={"role": "router"})
        server = PlainHost("dan", defaultRoute=f"via {BEHIND}")
        undo += [client.terminate, router.terminate, server.terminate]
        for one, other, ends in ((client, router, (CLIENT, ROUTER)), (router, server, (BEHIND, SERVER))):
            link = EmulatedLink(one, other, addr1=Mininet.randMac(), addr2=Mininet.randMac())
            undo.append(link.stop)
            link.intf1.setIP(f"{ends[0]}/24")
            link.intf2.setIP(f"{ends[1]}/24")
        for node in (client, router, server):
            node.configure()
        hosts.script(router, ["sysctl -q -w net.ipv4.ip_forward=1"])
        launcher = nodes.Launcher(settings.logs)
        undo.append(launcher.stop)
        programs = []
        for name, host, kind in (("syn-sender", client, "send"), ("syn-counter", server, "count")):
            worker = Worker(name, host, ["experiments.benchmarks.syns", kind], settings.logs)
            undo += [worker.stop, worker.close]
            programs.append(worker)
        launcher.wait_ready()
        run = {"name": "cleo", "node_id": 1, "role": "router", "providers": PROVIDERS}
        launcher.start([router], {"cleo": {**run, "run_dir": str(router.run_directory)}})
        for worker in programs:
            worker.wait_ready()
        nodes.ask(router, "rule_set", prefix=SERVICE, targets=[{"action": "forward", "address": SERVER}])
        service = nodes.ask(router, "address", name=SERVICE, port=0)["service"]
        sender, counter = programs
        routing = Routing(sender, counter, service, parameters)
        for variant in (SERVAL, IP):  # once unmeasured: ARP, first use of code
            routing.measure(variant)
        yield routing
    finally:
        while undo:
            undo.pop()()


def _router() -> Benchmark:
    shown: dict[str, Any] = {"unit": "us", "scale": 1e6, "better": LOWER}
    return Benchmark(
        name="router",
        title="{count} SYNs through a service router",
        comparisons=(Comparison(SERVAL, IP), Comparison(IP, IP)),
        figures=(
            Figure("SYNs per second, service router", "rate", SERVAL, unit="1/s", noise=IP),
            Figure("SYNs per second, kernel IP router (as fast as they were sent)", "rate", IP, unit="1/s"),
            Figure("a SYN of many, service router", "each", SERVAL, noise=IP, **shown),
            Figure("a SYN of many, kernel IP router (as fast as they were sent)", "each", IP, **shown),
            Figure("a lone SYN's way, kernel IP router", "alone", IP, **shown),
            Figure("a lone SYN's way: the service router adds", "alone", SERVAL, IP, DIFFERENCE, **shown),
        ),
        bed=bed,
        parameters={"count": 5000, "lone": 100, "pause": 0.001},
        quick={"count": 500, "run_seconds": 0.4},
        run_seconds=0.8,
    )


BENCHMARKS = (_router(),)
