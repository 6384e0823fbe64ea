"""Entering a host: namespaces, bind mounts, sysctls, and a socket that belongs to another namespace.

os.setns came with Python 3.12 only, so the calls go through ctypes. Everything here acts on the calling thread,
which is why the launcher's parent and every daemon have a single one.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(RuntimeError):
    """A step of entering the host failed; the text says which and why."""


def _check(result: int, what: str) -> None:
    if result != 0:
        raise NamespaceError(f"{what}: {os.strerror(ctypes.get_errno())}")


def enter(fd: int, kind: int, what: str) -> None:
    """setns: move this thread into the namespace behind `fd`; raises NamespaceError naming `what`."""
    _check(_libc.setns(fd, kind), f"cannot enter {what}")


def open_namespace(pid: int | str, kind: str) -> int:
    """A descriptor of the "net" or "mnt" namespace of a process ("self" for the own one); raises
    NamespaceError.
    """
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"no {kind} namespace of process {pid}: {error.strerror}") from None


def enter_host(pid: int) -> None:
    """Move this process into the network and mount namespaces of process `pid`, the host's shell."""
    net, mount = open_namespace(pid, "net"), open_namespace(pid, "mnt")
    try:
        enter(net, CLONE_NEWNET, f"the network namespace of process {pid}")
        enter(mount, CLONE_NEWNS, f"the mount namespace of process {pid}")
    finally:
        os.close(net)
        os.close(mount)


def socket_in(namespace: int) -> socket.socket:
    """A TCP socket that belongs to the network namespace behind `namespace`, made from whichever namespace this
    process is in.

    A socket keeps its namespace for life. So the controller channel needs no interface in the host: no address
    there that would show up in the host's address lists.
    """
    own = open_namespace("self", "net")
    try:
        enter(namespace, CLONE_NEWNET, "the sandbox's network namespace")
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            enter(own, CLONE_NEWNET, "the host's network namespace again")
    finally:
        os.close(own)


def has_own_mounts() -> bool:
    """Whether this process has a mount namespace of its own, so that a bind mount stays inside the host."""
    try:
        return os.readlink("/proc/self/ns/mnt") != os.readlink("/proc/1/ns/mnt")
    except OSError:  # another user's PID 1: then this is certainly not its namespace to change
        return False


def bind_mount(source: str, target: str) -> None:
    """Let `target` show `source` in this mount namespace only; raises NamespaceError.

    A target that is missing is made, but only below the run's private /run (where /etc/resolv.conf often
    points).
    """
    if not has_own_mounts():
        raise NamespaceError(f"{target} is not covered: this process shares its mount namespace with PID 1")
    real = os.path.realpath(target)
    if not os.path.exists(real):
        if not real.startswith("/run/"):
            raise NamespaceError(f"cannot cover {target}: {real} does not exist")
        if os.path.isdir(source):
            os.makedirs(real)
        else:
            Path(real).parent.mkdir(parents=True, exist_ok=True)
            Path(real).touch()
    _check(_libc.mount(source.encode(), real.encode(), None, MS_BIND, None), f"cannot bind {source} to {real}")


def die_with_parent(signal_number: int) -> None:
    """Receive `signal_number` when the parent process dies."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "cannot follow the parent process")


def set_sysctl(name: str, value: str) -> None:
    """Write one setting of this network namespace and read it back; raises NamespaceError.

    `name` in path form, for example "net/ipv4/conf/sal0/rp_filter".
    """
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() == value:
            return
        path.write_text(value)
        found = path.read_text().strip()
    except OSError as error:
        raise NamespaceError(f"cannot set {name} to {value}: {error.strerror}") from None
    if found != value:
        raise NamespaceError(f"{name} is {found} after it was set to {value}")


def thread_count() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))
