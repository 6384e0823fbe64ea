"""The Mininet prompt, with the commands of this testbed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mininet.cli import CLI
from mininet.log import error, output

from testbed import hosts
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.link.shape import parse_delay, parse_rate
from testbed.mobility import replug
from testbed.network import NO_CONTROLLER, ServalNetwork
from testbed.vm_migration import check_place
from testbed.words import did_you_mean

SERVAL_COMMANDS = ("serval", "servicectl")
HELP = """
Serval commands, in any host:
  ann serval table | flows | stat | names           what its node knows
  ann serval watch                                  its tables, live, with what changed marked (q ends it)
  ann serval connect web.example --count 8          which instance answers each connect
  ann serval trace web.example                      one connect, step by step
  ann curl http://web.example/                      an unmodified program
  ann iperf3 -c bulk.example                        bulk data, directly to the instance
Of the whole network:
  tables                    the service tables of all nodes
  services                  the services, their instances and policies
  servicectl ...            the controller by hand (servicectl --help)
  kill web.example dan      kill -9 of a server that the testbed started; start web.example dan: again
  restart dan               its node again, after it has ended
  link ann s1 down          and up again, with the routes that the kernel drops meanwhile
  impair r1 r2 delay=20ms jitter=2ms loss=1 rate=10 hole=on    change a link while it runs (docs/links.md)
  plug ann eth0 cell 10.2.0.1/24 10.2.0.254 gap=0.5       an interface joins another network (docs/mobility.md)
  move vic ian 10.2.2.10/24 10.2.2.254                    a virtual machine moves to another host
Host names after the first word are replaced by addresses (not after serval and servicectl). Ctrl-C interrupts the
command, `exit` or Ctrl-D ends the run.
"""
_WANTED = {
    1: "one word is wanted",
    2: "two words are wanted",
    3: "three words are wanted",
    4: "four words are wanted",
    5: "five words are wanted",
}
_SWITCH = {"on": True, "off": False}.__getitem__
_CHANGES: dict[str, Callable[[str], Any]] = {
    "rate": parse_rate,
    "delay": parse_delay,
    "jitter": parse_delay,
    "loss": float,
    "queue": int,
    "reorder": _SWITCH,
    "hole": _SWITCH,
    "towards": str,
}
_CHANGES_SHOWN = "rate=10, delay=20ms, jitter=2ms, loss=PERCENT, queue=FRAMES, reorder=on, hole=on, towards=NODE"


class HostPrompt(CLI):
    """Mininet's prompt, which leaves no file behind and hands `serval` and `servicectl` their words as they are."""

    @classmethod
    def initReadline(cls) -> None:
        """Line editing without Mininet's history file: under sudo it would be root's, in the user's home."""
        try:
            import readline  # noqa: F401 - its import is what switches editing on
        except ImportError:  # a Python without it still has a prompt
            return

    def do_source(self, line: str) -> None:
        """source FILE: the commands in a file."""
        words = line.split()
        try:
            # Mininet's own says that it cannot read the file, and then stumbles over closing it.
            if len(words) == 1:
                open(words[0]).close()
        except OSError as problem:
            error(f"*** {words[0]}: {problem.strerror}\n")
        else:
            super().do_source(line)

    def do_servicectl(self, line: str) -> None:
        """The controller by hand: servicectl --help."""
        if not getattr(self.mn, "has_controller", True):
            error(f"*** this network has no controller; {NO_CONTROLLER}\n")
            return
        self.do_sh(f"servicectl {line}")

    def default(self, line: str) -> None:
        """A command in a host. serval and servicectl get host names as they are, and an unknown host one clear line."""
        first, arguments, _ = self.parseline(line)
        if first not in self.mn:
            word = line.split()[0]
            commands = [name.removeprefix("do_") for name in self.get_names() if name.startswith("do_")]
            near = did_you_mean(word, [*self.mn, *commands])
            hint = f"; hosts and switches: {' '.join(sorted(self.mn))}" if arguments else ""
            error(f"*** unknown command or host {word!r}{near}; try: help{hint}\n")
        elif arguments and arguments.split()[0] in SERVAL_COMMANDS:
            self.mn[first].sendCmd(arguments)
            self.waitForNode(self.mn[first])
        else:
            super().default(line)


class Prompt(HostPrompt):
    """Runs until `exit`, end of input, or a signal that ends the run."""

    mn: ServalNetwork
    helpStr = CLI.helpStr + HELP

    def postcmd(self, stop: bool, line: str) -> bool:
        """After each command: tells of nodes that have ended by themselves."""
        for host in self.mn.ended_nodes():
            error(f"*** the node of {host.name} has ended by itself; its log: sh cat {host.log_path}\n")
            error(f"    its rules and flows are gone; `restart {host.name}` starts it again\n")
        return super().postcmd(stop, line)

    def do_tables(self, _line: str) -> None:
        """The service tables of all nodes."""
        for host in self.mn.serval_hosts:
            output(f"--- {host.name}\n")
            self._guarded(partial(self._table, host))

    @staticmethod
    def _table(host: ServalHost) -> None:
        output(hosts.run(host, ["serval", "table"]))

    def do_services(self, _line: str) -> None:
        """The services, their instances and policies, as the controller knows them."""
        self.do_servicectl("services")

    def do_kill(self, line: str) -> None:
        """kill SERVICE HOST: kill -9 of the server that the testbed started there."""
        self._guarded(lambda: self._kill(*self._words(line, 2, "SERVICE HOST")))

    def _kill(self, service: str, host: str) -> None:
        killed = self.mn.instance(service, host).kill()
        took = self.mn.wait_service(service, self.mn.running(service))
        output(f"killed process {killed}; {self._knew(took)}\n")

    def do_start(self, line: str) -> None:
        """start SERVICE HOST: start an instance (again), and wait until the service routers know it."""
        self._guarded(lambda: self._start(*self._words(line, 2, "SERVICE HOST")))

    def _start(self, service: str, host: str) -> None:
        self.mn.start_instance(service, host)
        running = self.mn.running(service)
        took = self.mn.wait_service(service, running)
        output(f"{service} on {', '.join(running)}; {self._knew(took)}\n")

    def _knew(self, seconds: float) -> str:
        who = "the service routers" if self.mn.has_controller else "the nodes"
        return f"{who} knew after {seconds * 1e3:.0f} ms"

    def do_restart(self, line: str) -> None:
        """restart HOST: start the node of a host again after it has ended."""
        self._guarded(lambda: self._restart(line))

    def _restart(self, line: str) -> None:
        (name,) = self._words(line, 1, "restart HOST")
        self.mn.restart_node(name)
        back = sorted({item.service.name for item in self.mn.instances if item.host.name == name and item.alive})
        for service in back:
            self.mn.wait_service(service, self.mn.running(service))
        served = f"; {', '.join(back)} registered again" if back else ""
        known = ", and the controller knows it" if self.mn.has_controller else ""
        output(f"the node of {name} runs{known}{served}\n")

    def do_link(self, line: str) -> None:
        """link NODE NODE up|down: a link; what comes up gets its declared routes back."""
        self._guarded(lambda: self._link(line))

    def _link(self, line: str) -> None:
        first, second, status = self._words(line, 3, "link NODE NODE up|down")
        if status not in ("up", "down"):
            raise TestbedError(f"{status!r} is neither up nor down", "link NODE NODE up|down")
        routes = self.mn.set_link(first, second, up=status == "up")
        if routes:
            output(f"routes that the kernel had dropped are back: {'; '.join(routes)}\n")

    def do_impair(self, line: str) -> None:
        """impair NODE NODE [rate=10] [delay=20ms] [jitter=2ms] [loss=PERCENT] [hole=on|off] ...: change a link."""
        self._guarded(lambda: self._impair(line))

    def _impair(self, line: str) -> None:
        words = line.split()
        if len(words) < 3:
            raise TestbedError("usage: impair NODE NODE SETTING...", f"settings: {_CHANGES_SHOWN}")
        link = self.mn.link_between(words[0], words[1])
        wanted: dict[str, Any] = {}
        for word in words[2:]:
            key, _, value = word.partition("=")
            try:
                wanted[key] = _CHANGES[key](value)
            except (KeyError, ValueError):
                raise TestbedError(f"{word!r} is none of {_CHANGES_SHOWN}") from None
        link.change(**wanted)

    def do_plug(self, line: str) -> None:
        """plug HOST INTERFACE BRIDGE ADDRESS GATEWAY [gap=SECONDS]: an interface joins another network."""
        self._guarded(lambda: self._plug(line))

    def _plug(self, line: str) -> None:
        usage = "plug HOST INTERFACE BRIDGE ADDRESS GATEWAY [gap=SECONDS]"
        words = line.split()
        gap = words.pop().removeprefix("gap=") if words and words[-1].startswith("gap=") else "0"
        host, interface, to, address, gateway = self._words(" ".join(words), 5, usage)
        try:
            seconds = float(gap)
        except ValueError:
            raise TestbedError(f"gap={gap} is no number of seconds", usage) from None
        check_place(address, gateway)
        moments = replug.move(self.mn, host, f"{host}-{interface}", to, address=address, gateway=gateway, gap=seconds)
        took = moments.addressed - moments.unplugged
        output(f"{host}'s {interface} is at {to}, {address}; {took * 1e3:.0f} ms from the old network to the address\n")

    def do_move(self, line: str) -> None:
        """move VM HOST ADDRESS GATEWAY: a virtual machine moves to another host, where it has another address."""
        self._guarded(lambda: self._move(*self._words(line, 4, "move VM HOST ADDRESS GATEWAY")))

    def _move(self, name: str, to: str, address: str, gateway: str) -> None:
        record = self.mn.vm(name).move(to, address=address, gateway=gateway)
        parts = ", ".join(f"{part} {seconds * 1e3:.0f} ms" for part, seconds in record.parts().items())
        output(f"{name} ({record.form} form) is on {record.destination}, {record.new_address}: {parts}\n")

    @staticmethod
    def _words(line: str, number: int, usage: str) -> list[str]:
        words = line.split()
        if len(words) != number:
            raise TestbedError(f"{_WANTED[number]}: {usage}")
        return words

    @staticmethod
    def _guarded(action: Callable[[], object]) -> None:
        try:
            action()
        except TestbedError as problem:
            error(f"*** {problem}\n")
