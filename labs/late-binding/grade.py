"""Grades the lab on late binding: `make lab-late-binding`. README.md beside it is the sheet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import testbed
from labs import grading
from testbed import hosts, nodes, sandbox
from testbed.errors import TestbedError, report
from testbed.hosts import ServalHost
from testbed.tour_steps import StepFailed
from topologies.declarations import Declared, Service

HERE = Path(__file__).resolve().parent
CLIENT, ROUTER, INSTANCES = "ann", "cleo", ("dan", "eve", "fay")
PROVIDER, PROVIDER_BLOCK = "example", 0x5E7A1E
SERVICE = f"web.{PROVIDER}"
SERVER = (sys.executable, str(HERE / "greeter.py"))
WANTED = ("at_the_edge", "at_the_router", "instances_changed", "EarlyBinding", "LateBinding")
CONNECTS = 12
BLOCK_BITS = 24
_CONNECT = (sys.executable, "-m", "serval_node.cli", "connect", SERVICE, "--json", "--count")


class LateBindingNetwork(Declared):
    """A client, a service router and three hosts that can serve, on one switch. Nobody gives them rules: that is the
    lab.
    """

    has_controller = False

    def build(self) -> None:
        switch = self.addSwitch("s1")
        for number, name in enumerate((CLIENT, ROUTER, *INSTANCES), 1):
            self.addHost(name, ip=f"10.8.0.{number}/24", serval={"role": "router" if name == ROUTER else "host"})
            self.addLink(name, switch, bw=100)
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = [Service(SERVICE, INSTANCES, SERVER, "{host}\n")]


class Place:
    """A host as the work sees it."""

    def __init__(self, host: ServalHost) -> None:
        self._host = host
        self.name, self.address = host.name, host.addresses()[0]

    def serval(self, *words: object) -> str:
        """What `serval WORDS` prints there. Raises TestbedError."""
        return self._host.serval(*[str(word) for word in words])


class Client:
    """A client class of the work, running in ann."""

    def __init__(self, host: ServalHost, work: Path, name: str, address: str) -> None:
        argv = hosts.inside(host, [sys.executable, str(HERE / "client.py"), str(work), name, address])
        self._name = name
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=sandbox.ROOT
        )
        if self._line() != "ready":
            raise StepFailed(f"{name} could not be started")

    def ask(self, what: str = "connect") -> dict[str, Any]:
        """One connect (`keep`: that stays open), or an `echo` over the kept one; the host reached, or the error."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._line() or '{"error": "it has ended"}')
        return told

    def reach(self, what: str = "connect") -> str:
        """The host that a connect reached; raises StepFailed."""
        told = self.ask(what)
        if "error" in told:
            raise StepFailed(f"{self._name}: {told['error']}")
        return str(told["host"])

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Lab:
    """The checks, on the running network."""

    def __init__(self, net: testbed.ServalNetwork, work: ModuleType, path: Path) -> None:
        self._net, self._work, self._path, self._service = net, work, path, SERVICE
        self._ann, self._cleo = net.serval_host(CLIENT), net.serval_host(ROUTER)
        self._instances = [net.serval_host(name) for name in INSTANCES]

    def steps(self) -> list[grading.Step]:
        first, second, third = (host.name for host in self._instances)
        return [
            ("TODO 1: one rule leads the whole block to the service router", self._edge),
            (f"TODO 2: {first} and {second} share the connections", self._router),
            ("only first packets come to the service router", self._first_packets),
            (f"TODO 3: {third} takes over; a client that resolved long ago reaches it", self._later),
            ("TODO 4: the instance dies; who bound early fails, who binds late does not", self._death),
        ]

    def _edge(self) -> str:
        self._call("at_the_edge", Place(self._ann), Place(self._cleo))
        rules = [entry for entry in self._table(self._ann) if _actions(entry) == {"forward"}]
        if not rules:
            raise StepFailed("ann has no FORWARD rule: look at `ann serval table`")
        if len(rules) > 1:
            raise StepFailed(f"ann has {len(rules)} FORWARD rules; one is enough for the block")
        (rule,) = rules
        bits = int(rule["prefix"].partition("/")[2])
        if bits != BLOCK_BITS:
            raise StepFailed(f"the rule {rule['service']} covers {bits} bits: that is not the block *.example")
        targets = [target["address"] for target in rule["targets"]]
        if targets != [Place(self._cleo).address]:
            raise StepFailed(f"ann forwards to {', '.join(targets)} and not to cleo, {Place(self._cleo).address}")
        refused = self._cleo_refuses()
        return f"ann has one rule, {rule['service']} FORWARD cleo; {refused}"

    def _cleo_refuses(self) -> str:
        """A name that nobody serves shows that SYNs arrive at cleo."""
        try:
            self._ann.serval("connect", "nobody.example", "--count", "1")
        except TestbedError as error:
            if "cleo" in error.message or "nobody serves" in error.message or "refused" in error.message.lower():
                return "cleo answered that nobody serves nobody.example"
            raise StepFailed(f"a connect to nobody.example: {error.message}") from None
        raise StepFailed("nobody.example was reached, and nobody serves it")

    def _router(self) -> str:
        both = self._instances[:2]
        self._serve(both)
        self._call("at_the_router", Place(self._cleo), [Place(host) for host in both])
        reached = self._connect(CONNECTS)
        if set(reached) != {host.name for host in both}:
            raise StepFailed(f"{CONNECTS} connects reached {_counts(reached)}: is the other one in cleo's rule?")
        return f"{CONNECTS} connects: {_counts(reached)}; ann's table is as before"

    def _first_packets(self) -> str:
        rule = next((entry for entry in self._table(self._cleo) if entry["service"] == self._service), None)
        if rule is None:
            raise StepFailed(f"cleo has no rule for {self._service}: look at `cleo serval table`")
        if rule["packets"] != CONNECTS:
            raise StepFailed(f"cleo's rule counted {rule['packets']} packets of {CONNECTS} connects")
        return f"{CONNECTS} connects, {rule['packets']} packets at cleo: the SYNs. All else went directly"

    def _later(self) -> str:
        third = self._instances[2]
        with self._client("ByName") as late:
            old = late.reach("keep")
            self._serve([third])
            self._call("instances_changed", Place(self._cleo), [Place(third)])
            reached = Counter(late.reach() for _ in range(CONNECTS))
            if set(reached) != {third.name}:
                raise StepFailed(f"after the change connects reached {_counts(reached)} and not {third.name} alone")
            told = late.ask("echo")
        if told.get("echo") != "still there":
            raise StepFailed(f"the connection to {old} from before the change: {told}")
        return f"all {CONNECTS} new connects reached {third.name}; the old connection to {old} goes on"

    def _death(self) -> str:
        second, third = self._instances[1], self._instances[2]
        self._serve([second, third])
        with self._client("EarlyBinding", third) as early, self._client("LateBinding") as late:
            if (before := (early.reach(), late.reach())) != (third.name, third.name):
                raise StepFailed(f"before it dies both should reach {third.name}, not {before}")
            self._net.instance(self._service, third.name).kill()
            self._call("instances_changed", Place(self._cleo), [Place(second)])
            late_told, early_told = late.ask(), early.ask()
        if late_told.get("host") != second.name:
            raise StepFailed(f"LateBinding after the change: {late_told}")
        if "error" not in early_told:
            raise StepFailed(f"EarlyBinding reached {early_told['host']}: does it keep the address?")
        return f"{third.name} is dead: EarlyBinding has {early_told['error']}; LateBinding reaches {second.name}"

    # -- what the checks are made of

    def _call(self, name: str, *arguments: object) -> None:
        grading.call(getattr(self._work, name), *arguments, path=self._path)

    def _serve(self, instances: Sequence[ServalHost]) -> None:
        for host in instances:
            if host.name not in self._net.running(self._service):
                self._net.start_instance(self._service, host.name)
        self._net.wait_service(self._service, self._net.running(self._service))

    def _connect(self, count: int) -> Counter[str]:
        told = hosts.run(self._ann, ["sh", "-c", '"$@" || true', "-", *_CONNECT, str(count)])
        result = json.loads(told)
        if result["failed"]:
            reason = next((item["error"] for item in result["connects"] if "error" in item), "no reason given")
            raise StepFailed(f"{result['failed']} of {count} connects failed: {reason}")
        return Counter(result["split"])

    @contextmanager
    def _client(self, name: str, looked_up: ServalHost | None = None) -> Iterator[Client]:
        address = Place(looked_up or self._instances[0]).address
        client = Client(self._ann, self._path, name, address)
        try:
            yield client
        finally:
            client.stop()

    def _table(self, host: ServalHost) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = nodes.ask(host, "table")["entries"]
        return entries


def _actions(entry: dict[str, Any]) -> set[str]:
    return {target["action"] for target in entry["targets"]}


def _counts(reached: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(reached.items()))


def main() -> int:
    options = grading.parser("Grade the lab on late binding.", HERE / "late_binding.py").parse_args()
    path = options.work.resolve()
    try:
        work = grading.load(path, WANTED)
        testbed.enter_sandbox(name="lab-late-binding")
        print(f"lab: {path}", flush=True)
        net = testbed.ServalNetwork(LateBindingNetwork())
        net.start()
        try:
            return grading.grade(Lab(net, work, path).steps())
        finally:
            net.stop()
    except TestbedError as error:
        report(error)
        return grading.UNREADABLE


if __name__ == "__main__":
    sys.exit(main())
