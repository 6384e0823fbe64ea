"""What makes the inside of a sandbox: its namespaces, its own /run, /proc and /sys, a loopback interface, its sysctls.

Everything here happens in the process that becomes PID 1, and nothing of it reaches the host: mounts are private before
the first one is made, and a namespace ends with its last process.
"""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path

from testbed import linux, symptoms, sysctl
from testbed.errors import TestbedError

RUN_DIRECTORIES = ("openvswitch", "testbed", "netns", "serval")
TUN = "/dev/net/tun"

PROJECT = Path(__file__).resolve().parent.parent

_PLAIN = linux.MS_NOSUID | linux.MS_NODEV
_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS

SYSCTLS = {
    # A new network namespace inherits IPv4 settings from the host's, and distributions differ here. Strict reverse path
    # filtering drops what arrives on one interface while the route back points to another, which is what mobility does.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}


def check_tun() -> None:
    """Raises TestbedError unless /dev/net/tun can be opened for reading and writing."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise TestbedError(
            f"{TUN} is missing, and every Serval host needs it",
            "load the module (sudo modprobe tun); in a container pass --device /dev/net/tun",
        ) from None
    except PermissionError:
        raise TestbedError(
            f"{TUN} cannot be opened for reading and writing by this user (uid {os.geteuid()})",
            f"run it with sudo, or allow it: sudo chmod 0666 {TUN}",
        ) from None
    except OSError as error:
        raise TestbedError(
            f"{TUN} cannot be opened: {error.strerror}", "the kernel needs its tun driver: sudo modprobe tun"
        ) from None


def check_kernel() -> None:
    """Raises TestbedError when the kernel is too old for the way in which a run watches its processes."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise TestbedError(
            f"this kernel ({platform.release()}) has no pidfd_open: {error.strerror}",
            "the testbed needs Linux 5.8 or newer; in a container the host's kernel counts, and an old container"
            " program may forbid what it has",
        ) from None


def enter_user_namespace() -> None:
    """Gives this single-threaded process its own user namespace, in which its user is root. Raises TestbedError."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        linux.unshare(linux.CLONE_NEWUSER)
        # Without this the kernel refuses an unprivileged gid map.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    except OSError as error:
        raise _no_user_namespace(error) from None


def unshare_processes() -> None:
    """Makes the next child of this process PID 1 of a new PID namespace. Raises TestbedError."""
    try:
        linux.unshare(linux.CLONE_NEWPID)
    except OSError as error:
        raise _not_allowed("a PID namespace", error) from None


def isolate(*, private_tmp: bool) -> None:
    """Turns the calling process, PID 1 of its namespace, into the first process of a sandbox. Raises TestbedError."""
    try:
        linux.unshare(_NAMESPACES)
    except OSError as error:
        raise _not_allowed("network and mount namespaces", error) from None
    try:
        _mounts(private_tmp=private_tmp)
        linux.set_link_up("lo")
        for name, value in SYSCTLS.items():
            sysctl.write(name, value)
    except OSError as error:
        raise _not_allowed("its private mounts and loopback interface", error) from None


def _mounts(*, private_tmp: bool) -> None:
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc", _PLAIN | linux.MS_NOEXEC)
    linux.mount("sysfs", "/sys", "sysfs", _PLAIN | linux.MS_NOEXEC)
    _private_run()
    if os.path.isdir("/dev/shm"):
        linux.mount("tmpfs", "/dev/shm", "tmpfs", _PLAIN, "mode=1777")
    if private_tmp:
        _private_tmp()
    if not in_user_namespace():
        _protect_host_sysctls()


def _private_tmp() -> None:
    # A project that lives below /tmp stays visible there: the programs inside are its own.
    below = PROJECT.is_relative_to("/tmp")
    project = os.open(PROJECT, os.O_PATH | os.O_DIRECTORY)
    try:
        linux.mount("tmpfs", "/tmp", "tmpfs", _PLAIN, "mode=1777")
        if below:
            PROJECT.mkdir(parents=True)
            linux.mount(f"/proc/self/fd/{project}", str(PROJECT), flags=linux.MS_BIND | linux.MS_REC)
    finally:
        os.close(project)


def _private_run() -> None:
    # A resolv.conf that is a link into /run loses its target here, and hosts want to bind their own over it.
    resolver = os.path.realpath("/etc/resolv.conf")
    linux.mount("tmpfs", "/run", "tmpfs", _PLAIN, "mode=0755")
    for name in RUN_DIRECTORIES:
        os.mkdir(f"/run/{name}", 0o755)
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    if os.path.isdir("/var/run") and not os.path.samefile("/var/run", "/run"):
        linux.mount("/run", "/var/run", flags=linux.MS_BIND)
    if resolver.startswith("/run/"):
        os.makedirs(os.path.dirname(resolver), exist_ok=True)
        Path(resolver).touch()


def _protect_host_sysctls() -> None:
    """Leaves only /proc/sys/net writable: it is the namespace's own, all the rest would change the host."""
    flags = linux.MS_BIND | linux.MS_REMOUNT | _PLAIN | linux.MS_NOEXEC
    linux.mount("/proc/sys", "/proc/sys", flags=linux.MS_BIND)
    linux.mount("/proc/sys/net", "/proc/sys/net", flags=linux.MS_BIND)
    linux.mount("none", "/proc/sys", flags=flags | linux.MS_RDONLY)


def in_user_namespace() -> bool:
    """Tells whether uid 0 of this process is something less than the machine's root."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def _switched_off(path: str, value: str) -> bool:
    try:
        return Path(path).read_text().strip() == value
    except OSError:  # this kernel has no such switch
        return False


def _no_user_namespace(error: OSError) -> TestbedError:
    message = "without root a sandbox needs a user namespace, and this machine does not allow one"
    switches = (
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    )
    for name, refused, allowed in switches:
        if _switched_off("/proc/sys/" + name.replace(".", "/"), refused):
            return TestbedError(
                f"{message}: {name} is {refused}", f"run it with sudo, or allow it: sudo sysctl {name}={allowed}"
            )
    return TestbedError(f"{message}: {error.strerror}", "run it with sudo; in a container allow it as for --privileged")


def _not_allowed(what: str, error: OSError) -> TestbedError:
    message = f"cannot make {what} for the sandbox: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES):
        if _switched_off("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") and in_user_namespace():
            return _no_user_namespace(error)
        return TestbedError(
            message, "run it with sudo; in a container it needs --cap-add SYS_ADMIN,NET_ADMIN or --privileged"
        )
    if error.errno == errno.ENOSPC:
        return TestbedError(
            message, "a limit in /proc/sys/user/max_*_namespaces is reached: raise it, or end other runs"
        )
    if error.errno == errno.EINVAL:
        return TestbedError(
            message, "this kernel lacks namespaces (CONFIG_NET_NS, CONFIG_PID_NS, CONFIG_USER_NS): take another one"
        )
    return TestbedError(message, symptoms.hint(str(error)) or "see the kernel's own words: sudo dmesg | tail")
