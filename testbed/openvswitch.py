"""A private Open vSwitch: its own database, ovsdb-server and ovs-vswitchd, below the sandbox's /run/openvswitch.

The host's Open vSwitch, if it has one, is neither used nor touched: its sockets are in the host's /run, out of sight.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testbed import processes, sandbox
from testbed.errors import TestbedError

RUN_DIRECTORY = Path("/run/openvswitch")
SOCKET = RUN_DIRECTORY / "db.sock"
_SCHEMAS = (
    Path("/usr/share/openvswitch/vswitch.ovsschema"),
    Path("/usr/local/share/openvswitch/vswitch.ovsschema"),
)
_TRIAL = "trial-datapath"


@dataclass(frozen=True)
class Datapath:
    """Which datapath the switches have ("system": the kernel's, or "user": ovs-vswitchd's own), and why, in words."""

    name: str
    reason: str

    @property
    def bridge_type(self) -> str:
        """The `datapath_type` of a bridge in Open vSwitch's database."""
        return "netdev" if self.name == "user" else "system"

    @property
    def mininet_name(self) -> str:
        """The `datapath` argument of Mininet's OVSSwitch."""
        return "user" if self.name == "user" else "kernel"


class OpenVSwitch:
    """The two daemons, as `start` returns them."""

    def __init__(self, database: processes.Daemon, switch: processes.Daemon) -> None:
        self.database = database
        self.switch = switch

    def stop(self) -> None:
        """Ends ovs-vswitchd, then its database. May be called again."""
        self.switch.stop()
        self.database.stop()


def start(log_directory: str | os.PathLike[str] = RUN_DIRECTORY, *, timeout: float = 10.0) -> OpenVSwitch:
    """Starts a private Open vSwitch in this sandbox and waits until it carries out what its database says.

    Raises TestbedError outside a sandbox, when a program is missing, or when a daemon is not ready in time (seconds).
    """
    if not sandbox.inside():
        raise TestbedError("a private Open vSwitch is started in a sandbox only", "use: testbed exec -- COMMAND")
    logs = Path(log_directory)
    # What is started here, and every ovs-vsctl that follows, finds everything in the private directory.
    for name in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"):
        os.environ[name] = str(RUN_DIRECTORY)
    os.environ["OVS_LOGDIR"] = str(logs)
    database_file = RUN_DIRECTORY / "conf.db"
    if not database_file.exists():
        processes.run(["ovsdb-tool", "create", str(database_file), str(_schema())])
    database = _start(
        "ovsdb-server",
        [f"--remote=punix:{SOCKET}", "--remote=db:Open_vSwitch,Open_vSwitch,manager_options", str(database_file)],
        logs,
        ready=_listening,
        timeout=timeout,
    )
    try:
        unconfigured = ["set", "Open_vSwitch", ".", "next_cfg=1", "cur_cfg=0"]
        processes.run(["ovs-vsctl", "--no-wait", "init", "--", *unconfigured], timeout=timeout)
        switch = _start("ovs-vswitchd", [f"unix:{SOCKET}"], logs, ready=_configured, timeout=timeout)
    except BaseException:  # also when Ctrl-C ends the wait: nothing that failed to start is left running
        database.stop()
        raise
    return OpenVSwitch(database, switch)


def _start(
    name: str, arguments: list[str], logs: Path, *, ready: Callable[[], bool], timeout: float
) -> processes.Daemon:
    # The log goes to standard error, and so to the log file, together with what the C library says in a crash.
    argv = [name, "--no-chdir", f"--pidfile={RUN_DIRECTORY / name}.pid", "--verbose=syslog:off", *arguments]
    return processes.start(name, argv, log=logs / f"{name}.log", ready=ready, timeout=timeout)


def _schema() -> Path:
    for path in _SCHEMAS:
        if path.exists():
            return path
    raise TestbedError("Open vSwitch's database schema is missing", "install what is missing: make setup")


def _listening() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(SOCKET))
        except OSError:  # not there yet
            return False
    return True


def _configured() -> bool:
    """Tells whether ovs-vswitchd has carried out the configuration, which it shows by raising cur_cfg to next_cfg."""
    return processes.run(["ovs-vsctl", "--no-wait", "get", "Open_vSwitch", ".", "cur_cfg"]).strip() == "1"


@cache
def datapath_type() -> Datapath:
    """Finds out, by making one in this network namespace, whether the kernel's datapath can be used.

    Raises TestbedError when Open vSwitch's tools are missing.
    """
    try:
        processes.run(["ovs-dpctl", "add-dp", f"system@{_TRIAL}"])
    except TestbedError as error:
        if "is missing" in error.message:
            raise
        return Datapath("user", _why_not())
    processes.run(["ovs-dpctl", "del-dp", f"system@{_TRIAL}"])
    return Datapath("system", "the kernel has the openvswitch module, and this sandbox may use it")


def _why_not() -> str:
    if Path("/sys/module/openvswitch").exists():
        return "the kernel's openvswitch module is loaded, but this sandbox may not use it"
    return "the kernel has no openvswitch module loaded, and none could be loaded"
