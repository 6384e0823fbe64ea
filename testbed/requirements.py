"""What a run needs of the machine, looked at before anything is started: programs, kernel, limits.

`check` names everything that is missing at once, and what to do about each. Features of the kernel are tried out in
the sandbox, where a trial touches nothing else; a version number says little, since distributions leave parts out.
"""

from __future__ import annotations

import fcntl
import os
import platform
import resource
import shutil
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import isolation, processes, symptoms, sysctl
from testbed.errors import TestbedError

PROGRAMS: Mapping[str, str] = {
    "mnexec": "mininet",
    "ovsdb-tool": "openvswitch-common",
    "ovsdb-server": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-common",
    "ovs-dpctl": "openvswitch-common",
    "ip": "iproute2",
    "tc": "iproute2",
    "ping": "iputils-ping",
    "ethtool": "ethtool",
    "sysctl": "procps",
}
"""What every run calls, and the package of Debian and Ubuntu that it is in."""
MEASURING = {"iperf3": "iperf3"}
CAPTURING = {"tcpdump": "tcpdump"}
TOUR = {"curl": "curl"}

CONGESTION_CONTROL = "cubic"
SERVAL_PROTOCOL = 144
FILES_ALONE, FILES_EACH = 48, 1
"""Descriptors that one process of a run (ovs-vswitchd) needs at most: alone, and for each node, switch and link."""
PROCESSES_ALONE, PROCESSES_EACH = 6, 1.5
MANY = 4096  # what the messages propose

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x1, 0x2
_NETLINK_SOCK_DIAG, _SOL_NETLINK, _ADD_MEMBERSHIP, _TCP_DESTROY = 4, 270, 1, 1
_SOCK_DIAG_BY_FAMILY, _NLM_REQUEST_DUMP, _NLMSG_ERROR = 20, 0x301, 2
_ANSWER_SECONDS = 2.0
_TRIAL = "trial0"


@dataclass(frozen=True)
class Feature:
    """Something of the kernel: what for, how to get it, and `trial`, which raises OSError or TestbedError without."""

    name: str
    remedy: str
    trial: Callable[[], None]


def check(
    *, programs: Iterable[Mapping[str, str]] = (), services: Iterable[Sequence[str]] = (), members: int = 0
) -> None:
    """Raises one TestbedError that names all that is missing, with what to do.

    programs  more of them than PROGRAMS, as MEASURING
    services  the commands of the servers that are to run
    members   nodes, switches and links
    """
    missing_programs(programs, services)
    check_limits(members)
    check_room()
    check_kernel(FEATURES)


def missing_programs(more: Iterable[Mapping[str, str]] = (), services: Iterable[Sequence[str]] = ()) -> None:
    """Raises TestbedError when a program is not to be found on PATH."""
    wanted = dict(PROGRAMS)
    for table in more:
        wanted.update(table)
    missing = [name for name in wanted if shutil.which(name) is None]
    packages = sorted({wanted[name] for name in missing})
    missing += sorted({command[0] for command in services if shutil.which(command[0]) is None} - set(missing))
    if not missing:
        return
    what = (
        f"the program {missing[0]} is missing" if len(missing) == 1 else f"programs are missing: {', '.join(missing)}"
    )
    by_hand = f"; if that finds nothing to do: apt-get install --reinstall {' '.join(packages)}" if packages else ""
    raise TestbedError(what, f"install what is missing: make setup{by_hand}")


def check_limits(members: int) -> None:
    """Raises the limits as far as this process may, and TestbedError where that is not enough for so many members."""
    for limit, wanted, what in (
        (resource.RLIMIT_NOFILE, FILES_ALONE + FILES_EACH * members, "open files: ulimit -n"),
        (resource.RLIMIT_NPROC, round(PROCESSES_ALONE + PROCESSES_EACH * members), "processes: ulimit -u"),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))
        # The machine's root is not counted; in a user namespace all that the user runs anywhere counts.
        counted = limit != resource.RLIMIT_NPROC or os.geteuid() != 0 or isolation.in_user_namespace()
        if counted and hard != resource.RLIM_INFINITY and hard < wanted:
            subject, command = what.split(": ")
            raise TestbedError(
                f"the limit of {subject} is {hard}, and this network needs about {wanted}",
                f"raise it ({command} {max(MANY, wanted)}, as root where it is refused), or build fewer hosts",
            )


def check_room() -> None:
    """Raises TestbedError when nothing can be written where a run writes unasked."""
    if full := symptoms.full_places():
        raise TestbedError(f"no room is left in {', '.join(full)}", symptoms.disk_hint())


def check_kernel(features: Iterable[Feature]) -> None:
    """Raises TestbedError that names each feature which this kernel has not, or does not let us use."""
    lacking = []
    for feature in features:
        try:
            feature.trial()
        except OSError as error:
            lacking.append((feature, error.strerror or str(error)))
        except TestbedError as error:
            lacking.append((feature, error.message.rpartition(": ")[2]))
    if not lacking:
        return
    raise TestbedError(
        f"this kernel ({platform.release()}) lacks what the testbed needs, or does not let this user have it",
        "\n  ".join(f"{feature.name} ({said}): {feature.remedy}" for feature, said in lacking),
    )


def _veth() -> None:
    processes.run(["ip", "link", "add", "name", _TRIAL, "type", "veth", "peer", "name", f"{_TRIAL}b"])
    processes.run(["ip", "link", "del", _TRIAL])


def _htb() -> None:
    processes.run(["tc", "qdisc", "add", "dev", "lo", "root", "handle", "5:", "htb", "default", "1"])
    try:
        processes.run(["tc", "class", "add", "dev", "lo", "parent", "5:", "classid", "5:1", "htb", "rate", "1mbit"])
        processes.run(["tc", "qdisc", "add", "dev", "lo", "parent", "5:1", "handle", "6:", "bfifo", "limit", "9999"])
    finally:
        processes.run(["tc", "qdisc", "del", "dev", "lo", "root"])


def _tun() -> None:
    device = os.open(isolation.TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _TRIAL.encode(), flags))
        fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    finally:
        os.close(device)


def _raw_sockets() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, SERVAL_PROTOCOL).close()
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def _socket_notices() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(_ANSWER_SECONDS)
        diag.bind((0, 0))
        diag.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _TCP_DESTROY)
        # struct nlmsghdr, then struct inet_diag_req_v2: all TCP sockets that listen.
        request = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << 10)
        header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_REQUEST_DUMP, 1, 0)
        diag.send(header + request)
        answer = diag.recv(65536)
    kind, (code,) = struct.unpack_from("=IH", answer)[1], struct.unpack_from("=i", answer, 16)
    if kind == _NLMSG_ERROR and code:
        raise OSError(-code, os.strerror(-code))


def _congestion_control() -> None:
    known = sysctl.read("net.ipv4.tcp_available_congestion_control").split()
    if CONGESTION_CONTROL not in known:
        raise TestbedError(f"it has: {' '.join(known)}")


FEATURES: tuple[Feature, ...] = (
    Feature("veth interfaces", "sudo modprobe veth (CONFIG_VETH)", _veth),
    Feature("HTB, which makes rates", "sudo modprobe sch_htb (CONFIG_NET_SCH_HTB)", _htb),
    Feature("TUN devices with segmentation offload", "sudo modprobe tun (CONFIG_TUN)", _tun),
    Feature(
        "raw and packet sockets",
        "sudo modprobe af_packet (CONFIG_PACKET); in a container --cap-add NET_RAW",
        _raw_sockets,
    ),
    Feature(
        "news of TCP sockets that end",
        "sudo modprobe tcp_diag (CONFIG_INET_DIAG); Linux 4.2 or newer",
        _socket_notices,
    ),
    Feature(
        f"TCP congestion control {CONGESTION_CONTROL}",
        "sudo modprobe tcp_cubic (CONFIG_TCP_CONG_CUBIC)",
        _congestion_control,
    ),
)


def check_writable(directory: Path) -> None:
    """Raises OSError when no file can be made and written in the directory."""
    trial = directory / f".trial-{os.getpid()}"
    try:
        trial.write_bytes(bytes(4096))
    finally:
        trial.unlink(missing_ok=True)
