"""The short tours of networks in which hosts and flows move: each shows one stream that lives through it.

A step prints what is done, what came out, and PASS or FAIL with the reason, as the datacenter's tour does.
"""

from __future__ import annotations

from collections.abc import Callable

from testbed import nodes
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.network import Say, ServalNetwork
from testbed.streaming import Streaming, streaming
from testbed.tour_steps import Step, StepFailed, run_steps, show
from topologies import vm_migration

STREAM_RATE = 4.0
_PARTS = {"detect": "detected", "decide": "decided", "signal": "answered"}


class MovingTour:
    """What they share: a client connects, and a stream of data moves. `run` returns the exit status."""

    rate = STREAM_RATE

    def __init__(self, net: ServalNetwork, say: Say) -> None:
        self._net = net
        self._say = say
        self._web = net.topo.services[0]
        serving = {name for service in net.topo.services for name in service.hosts}
        self._client = next(host for host in net.serval_hosts if host not in net.routers and host.name not in serving)
        self._server = net.serval_host(self._web.hosts[0])
        self._stream: Streaming

    def run(self) -> int:
        """All steps, also after one that failed."""
        first: list[Step] = [
            (f"an unmodified program reaches {self._web.name}", self._curl),
            ("one connect, step by step", self._trace),
        ]
        self._say(f"a stream of {self.rate:g} Mbit/s begins: {self._server.name} to {self._client.name}")
        try:
            with streaming(self._net, self._client.name, self._server.name, rate=self.rate) as stream:
                self._stream = stream
                last: Step = ("the stream is whole", self._whole)
                return run_steps([*first, *self.steps(), last], self._say)
        except TestbedError as error:
            self._say(f"FAIL {error}")
            return 1

    def steps(self) -> list[Step]:
        """What this network shows."""
        return []

    # -- the steps

    def _curl(self) -> str:
        body = show(self._client, "curl", "--silent", "--show-error", f"http://{self._web.name}/", say=self._say)
        if f" {self._server.name}," not in body:
            raise StepFailed(f"the answer is not that of {self._server.name}")
        return f"{self._server.name} answered {self._client.name}, which knows only the service's name"

    def _trace(self) -> str:
        shown = show(self._client, "serval", "trace", self._web.name, say=self._say)
        if "SYN-ACK {" not in shown:
            raise StepFailed("the trace lacks the SYN-ACK")
        return "the name is in the first packets only; data has two flowIDs and no name"

    def _whole(self) -> str:
        result = self._stream.finish()
        if not result["intact"]:
            raise StepFailed(f"wrong bytes: {result['wrong']}")
        if result["broken"] is not None:
            raise StepFailed(f"it broke: {result['broken']['why']}")
        gap = max((float(item["seconds"]) for item in result["gaps"]), default=0.0)
        return f"{result['bytes'] / 1e6:.1f} MB, every byte verified; the longest silence was {gap * 1e3:.0f} ms"

    # -- what the steps are made of

    def _moved(self, host: ServalHost, what: str, move: Callable[[], object], to: str) -> str:
        """Do something, and wait until the stream's flow at a host is at an address and carries data."""
        before = self._stream.place(host.name)
        count = len(self._blackouts(host))
        self._say(f"  {what}")
        move()
        self._stream.wait_place(host.name, to)
        found = self._blackouts(host)[count:]
        for blackout in found[-1:]:
            parts = ", ".join(f"{word} {blackout[part] * 1e3:.1f} ms" for part, word in _PARTS.items())
            self._say(f"    {blackout['source']} -> {blackout['target']}: {blackout['cause']}; {parts}")
        return f"the flow went from {before} to {to}; its socket and its flowID are the same"

    @staticmethod
    def _blackouts(host: ServalHost) -> list[dict]:
        return nodes.ask(host, "events", kinds=["Blackout"])["events"]


class TwoHostsTour(MovingTour):
    """Nothing moves on a single wire: connecting, and data."""


class MultihomedTour(MovingTour):
    """The server's flow goes from one interface to the other, and back."""

    def steps(self) -> list[Step]:
        first, second = self._server.addresses()
        return [
            ("what leaves from an address goes by its own interface", self._routes),
            (f"the flow is moved to {self._server.name}'s second interface", lambda: self._to(second)),
            ("and back", lambda: self._to(first)),
        ]

    def _routes(self) -> str:
        show(self._server, "ip", "rule", say=self._say)
        first, second = (home.interface for home in self._server.homes())
        for home in self._server.homes():
            words = ("ip", "route", "get", self._client.addresses()[0], "from", home.address)
            if home.interface not in show(self._server, *words, say=self._say):
                raise StepFailed(f"what leaves from {home.address} does not go by {home.interface}")
        return f"two addresses, {first} and {second}, and a routing table for each"

    def _to(self, address: str) -> str:
        flow = self._stream.flow(self._server.name)["flow_id"]
        words = ("serval", "migrate", "flow", str(flow), address)
        return self._moved(self._server, "told by hand:", lambda: show(self._server, *words, say=self._say), address)


class MobileTour(MovingTour):
    """The client's access networks go and come."""

    def steps(self) -> list[Step]:
        if len(self._client.homes()) < 2:
            return []
        wifi, cell = (home.address for home in self._client.homes())
        return [
            ("WiFi is lost, and the flow goes to the cellular network", lambda: self._link("wifi", False, cell)),
            ("WiFi is back, and the flow goes back", lambda: self._link("wifi", True, wifi)),
        ]

    def _link(self, network: str, up: bool, address: str) -> str:
        what = f"link {self._client.name} {network} {'up' if up else 'down'}"
        return self._moved(self._client, what, lambda: self._net.set_link(self._client.name, network, up=up), address)


class VmTour(MovingTour):
    """The virtual machine moves to the other host, where it has another address."""

    def steps(self) -> list[Step]:
        return [("the virtual machine moves, with a stream that it sends", self._move)]

    def _move(self) -> str:
        vm = self._net.vm(self._server.name)
        to = next(name for name in vm_migration.MACHINES if name != vm.host)
        address, gateway = vm_migration.place(to)
        self._say(f"  {vm.name}: {vm.host} {vm.address} -> {to} {address} ({vm.form} form)")
        record = vm.move(to, address=address, gateway=gateway)
        for part, seconds in record.parts().items():
            self._say(f"    {part:10} {seconds * 1e3:7.1f} ms")
        self._stream.wait_place(vm.name, record.new_address)
        if record.answered is None:
            raise StepFailed("its flow was not answered at the new address")
        standstill = (record.data or record.answered) - record.stopped
        return f"the flow stood still for {standstill * 1e3:.0f} ms and goes on from {record.new_address}"


TOURS: dict[str, type[MovingTour]] = {
    "two-hosts": TwoHostsTour,
    "multihomed-server": MultihomedTour,
    "mobile-client": MobileTour,
    "vm-migration": VmTour,
}
