"""The short tour of a network without a controller: who answers a broadcast, and what becomes of those who lose.

A step prints what a person would type, what came out, and PASS or FAIL with the reason, as the datacenter's tour does.
"""

from __future__ import annotations

from testbed import nodes
from testbed.hosts import ServalHost
from testbed.network import Say, ServalNetwork
from testbed.tour_steps import Step, StepFailed, run_steps, show

CONNECTS = 8
WAIT_SECONDS = 5.0


class AdHocTour:
    """Runs the steps on a network in ad hoc mode whose services are up."""

    def __init__(self, net: ServalNetwork, say: Say) -> None:
        self._net = net
        self._say = say
        self._web, self._far = net.topo.services[:2]
        serving = {name for service in net.topo.services for name in service.hosts}
        self._client = next(host for host in net.serval_hosts if host.name not in serving)

    def run(self) -> int:
        """All steps, also after one that failed; returns the exit status: 0 when all passed."""
        steps: list[Step] = [
            (f"an unmodified program finds {self._web.name} by broadcast", self._curl),
            ("one connect, step by step", self._trace),
            (f"{CONNECTS} connects: one instance stays with each, the others free what they had", self._losers),
            (f"{self._far.name} is found beyond the link, by relays", self._flood),
        ]
        return run_steps(steps, self._say)

    # -- the steps: each returns what it has seen to be right, or raises

    def _curl(self) -> str:
        body = self._show(self._client, "curl", "--silent", "--show-error", f"http://{self._web.name}/")
        self._show(self._client, "serval", "table")
        answered = next((host for host in self._web.hosts if f" {host}," in body), None)
        if answered is None:
            raise StepFailed(f"the answer names none of {', '.join(self._web.hosts)}")
        return f"{answered} answered; no controller has given {self._client.name} a rule"

    def _trace(self) -> str:
        shown = self._show(self._client, "serval", "trace", self._web.name)
        if "everyone on" not in shown:
            raise StepFailed("the SYN did not go by broadcast")
        return "SYN to everyone on the link; the first SYN-ACK counts"

    def _losers(self) -> str:
        before = self._counter(self._client, "other_instance")
        self._show(self._client, "serval", "connect", self._web.name, "--count", str(CONNECTS))
        refused = self._counter(self._client, "other_instance") - before
        instances = [self._net.serval_host(name) for name in self._web.hosts]
        self._net.wait(
            "the instances have no half-open flow left",
            lambda: not any(self._half_open(host) for host in instances),
            log=instances[0].log_path,
            timeout=WAIT_SECONDS,
        )
        if len(instances) > 1 and not refused:
            raise StepFailed("no instance that lost was told so")
        return f"{refused} answers of others were reset, and no half-open flow is left at {', '.join(self._web.hosts)}"

    def _flood(self) -> str:
        where = self._far.hosts[0]
        body = self._show(self._client, "curl", "--silent", "--show-error", f"http://{self._far.name}/")
        if f" {where}," not in body:
            raise StepFailed(f"{where} did not answer")
        relays = [host for host in self._net.serval_hosts if self._counter(host, "adhoc_syns_relayed")]
        if not relays and not self._on_the_link(where):
            raise StepFailed("no host relayed the SYN")
        return f"{where} answered; relayed by {', '.join(host.name for host in relays) or 'nobody: it is on the link'}"

    # -- what the steps are made of

    def _on_the_link(self, name: str) -> bool:
        subnet = self._client.addresses()[0].rpartition(".")[0] + "."
        return any(address.startswith(subnet) for address in self._net.find(name).addresses())

    @staticmethod
    def _half_open(host: ServalHost) -> bool:
        return any(flow["state"] == "RESPOND" for flow in nodes.ask(host, "flows")["flows"])

    @staticmethod
    def _counter(host: ServalHost, name: str) -> int:
        return nodes.ask(host, "stat")["counters"].get(name, 0)

    def _show(self, host: ServalHost, *words: str, at_most: int = 40) -> str:
        return show(host, *words, say=self._say, at_most=at_most)
