"""The run's switches: bridges of the private Open vSwitch, made in one transaction, and plain Linux bridges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mininet.node import OVSSwitch

from testbed import hosts, openvswitch, processes
from testbed.errors import TestbedError
from topologies.declarations import Bridge

MAX_BACKOFF_MS = 1000  # the least that Open vSwitch takes


class FabricSwitch(OVSSwitch):
    """An OpenFlow 1.3 switch; without a controller it learns by itself."""

    def __init__(self, name: str, **params: Any) -> None:
        params.setdefault("datapath", openvswitch.datapath_type().mininet_name)
        super().__init__(name, **{**params, "protocols": "OpenFlow13", "batch": False})
        self.target: str | None = None

    def bridge_commands(self) -> list[list[str]]:
        """The commands that make it in an ovs-vsctl transaction."""
        controller = self.target
        datapath = openvswitch.datapath_type().bridge_type
        columns = [
            f"datapath_type={datapath}",
            "protocols=OpenFlow13",
            f"fail_mode={'standalone' if controller is None else 'secure'}",
            f"other_config:datapath-id={self.dpid}",
            f"other_config:dp-desc={self.name}",
            "other_config:disable-in-band=true",
        ]
        commands = [["add-br", self.name], ["set", "Bridge", self.name, *columns]]
        if controller is not None:
            commands.append(["set-controller", self.name, controller])
            commands.append(["set", "Controller", self.name, f"max_backoff={MAX_BACKOFF_MS}"])
        for interface, port in sorted(self.ports.items(), key=lambda item: item[1]):
            if interface.name == "lo":
                continue
            commands.append(["add-port", self.name, interface.name])
            commands.append(["set", "Interface", interface.name, f"ofport_request={port}"])
            # Else ovs-vswitchd takes every queueing discipline away that it did not put there.
            commands.append(["set", "Port", interface.name, "qos=@untouched"])
        return commands

    def start(self, controllers: Sequence[Any]) -> None:
        """For Mininet's `switch NAME start`; the controller is the run's."""
        start([self], self.target)

    def connected(self) -> bool:
        """Whether it has its controller; Open vSwitch's database says so up to 5 s later."""
        shown = processes.run(["ovs-vsctl", "get", "Controller", self.name, "is_connected"])
        return shown.strip() == "true"

    def stop(self, deleteIntfs: bool = True) -> None:
        """Take the bridge away; its interfaces belong to the links."""
        processes.run(["ovs-vsctl", "--if-exists", "del-br", self.name])


class KernelBridge(Bridge):
    """A Linux bridge, made by checked commands. Its ports forward at once: there is no spanning tree."""

    def start(self, controllers: Sequence[Any] = ()) -> None:
        """Raises TestbedError."""
        ports = [interface.name for interface in self.intfList() if interface.name != "lo"]
        commands = [f"link add {self.name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]
        commands += [f"link set {port} master {self.name} up" for port in ports]
        processes.run(["sh", "-ec", hosts.batch("ip", [*commands, f"link set {self.name} up"])])

    def stop(self, deleteIntfs: bool = True) -> None:
        """Take the bridge away; its interfaces belong to the links."""
        if Path(f"/sys/class/net/{self.name}").exists():
            processes.run(["ip", "link", "del", self.name])


def start(switches: Sequence[FabricSwitch], controller: str | None) -> None:
    """Make the bridges in one transaction, with their controller ("tcp:HOST:PORT") or without; raises TestbedError.

    Whether they have reached it is the controller's to say: Open vSwitch tells of it in its database up to 5 s later.
    """
    commands = [["--id=@untouched", "create", "QoS", "type=linux-noop"]]
    for switch in switches:
        switch.target = controller
        commands += switch.bridge_commands()
        for interface in switch.intfList():
            processes.run(["ip", "link", "set", interface.name, "up"])
    if switches:
        _transaction(commands)


def stop(switches: Sequence[FabricSwitch]) -> None:
    """Take all bridges away in one transaction."""
    _transaction([["--if-exists", "del-br", switch.name] for switch in switches])


def _transaction(commands: Sequence[Sequence[str]]) -> None:
    words = [word for command in commands for word in ("--", *command)]
    if not words:
        return
    try:
        processes.run(["ovs-vsctl", *words])
    except TestbedError as error:
        said = error.message.rpartition("`")[2].strip()  # without the command: it is a screen long
        raise TestbedError(f"ovs-vsctl, for the switches, {said}", error.hint) from None
