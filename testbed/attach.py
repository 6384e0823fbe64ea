"""Finding the sandboxes that run, and running a command in one of them, or in one of its hosts.

PID 1 of every sandbox has a marker in its command line, which it gets when the sandbox is complete: /proc is the
registry, and no file is left behind that could be wrong.
"""

from __future__ import annotations

import os
import pwd
import select
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from testbed import ancestors, init, linux
from testbed.errors import TestbedError
from testbed.terminal import Terminal
from testbed.words import did_you_mean

_SHELL = "mininet:"  # Mininet starts the shell of each node with this and its name as last word
_INNER = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that runs: process id (of its first process, seen from here), owner, name, what it runs, and its start
    in the kernel's ticks since boot.
    """

    pid: int
    uid: int
    gid: int
    name: str
    command: str
    ticks: int

    @property
    def user(self) -> str:
        """The owner's name, or number if it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        since_boot = self.ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot

    @property
    def clock(self) -> str:
        """When it was started, for people; with the day when that is another one."""
        started, today = time.localtime(self.started), time.localtime()
        return time.strftime("%H:%M:%S" if started[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", started)

    @property
    def directory(self) -> str:
        """Where it was started; "?" when that is not ours to know."""
        try:
            return os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:
            return "?"

    def as_json(self) -> dict[str, object]:
        """For `testbed list --json`."""
        described = {"pid": self.pid, "user": self.user, "name": self.name, "command": self.command}
        return {**described, "started": round(self.started, 2), "directory": self.directory}


def find() -> list[Sandbox]:
    """Returns the sandboxes that can be seen from here, oldest process id first."""
    numbers = sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [found for found in map(_inspect, numbers) if found is not None]


def _inspect(pid: int) -> Sandbox | None:
    process = ancestors.read_process(pid)
    if process is None or init.MARKER not in process.arguments:
        return None
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/stat") as file:
            ticks = int(file.read().rpartition(") ")[2].split()[19])
    except OSError:  # it has just ended
        return None
    # A `grep` may have the word in its command line too; only one process is the first in its namespace.
    if fields["NSpid"].split()[-1] != "1":
        return None
    _, name, _, _, _, *argv = process.arguments[process.arguments.index(init.MARKER) :] + ("",) * 5
    command = shlex.join([word for word in argv if word])
    return Sandbox(pid, int(fields["Uid"].split()[1]), int(fields["Gid"].split()[1]), name, command, ticks)


def choose(wanted: str | None) -> Sandbox:
    """Returns the sandbox with this name or process id; with None the only one. Raises TestbedError."""
    everything = find()
    matching = [entry for entry in everything if wanted is None or wanted in (entry.name, str(entry.pid))]
    if len(matching) == 1:
        return matching[0]
    running = ", ".join(f"{entry.pid} ({entry.name}, since {entry.clock}, {entry.directory})" for entry in everything)
    if not everything:
        raise TestbedError("no sandbox is running", "start one: testbed run datacenter")
    if not matching:
        raise TestbedError(f"no sandbox called {wanted} is running", f"running: {running}")
    raise TestbedError("several sandboxes are running: say which, by its process id", f"running: {running}")


def hosts(target: Sandbox) -> dict[str, int]:
    """The hosts of the network that runs in a sandbox: process id, as seen inside, of each one's shell.

    Nodes without a network namespace of their own, as switches, are none. Raises TestbedError.
    """
    try:
        _same(target.pid, target.pid, "pid")
    except PermissionError as error:
        raise _refused(target, error) from None
    except FileNotFoundError:
        raise TestbedError(f"the sandbox {target.pid} has just ended") from None
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        process = ancestors.read_process(int(entry))
        if process is None or not process.arguments or not process.arguments[-1].startswith(_SHELL):
            continue
        try:
            if _same(target.pid, int(entry), "pid") and not _same(target.pid, int(entry), "net"):
                with open(f"/proc/{entry}/status") as file:
                    inside = next(line for line in file if line.startswith("NSpid:")).split()[-1]
                found[process.arguments[-1].removeprefix(_SHELL)] = int(inside)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        except PermissionError:
            continue  # of another user, so of another sandbox
    return found


def in_host(target: Sandbox, name: str, argv: Sequence[str]) -> list[str]:
    """The command line that, in the sandbox, runs a command in one of its hosts. Raises TestbedError."""
    known = hosts(target)
    if name not in known:
        there = f"there are: {', '.join(sorted(known))}" if known else "no network runs there"
        raise TestbedError(
            f"no host {name!r} in the sandbox {target.pid} ({target.name}){did_you_mean(name, known)}", there
        )
    return ["mnexec", "-a", str(known[name]), *argv]


def attach(target: Sandbox, argv: Sequence[str]) -> int:
    """Runs a command in the sandbox and returns its exit status. Raises TestbedError.

    The command ends with the sandbox, and when this process is killed. Like `sandbox.run` it changes this process for
    good.
    """
    fd = _open(target)
    _become_owner(target)
    try:
        if _is_foreign(target.pid, "user"):
            linux.setns(fd, linux.CLONE_NEWUSER)
        linux.setns(fd, linux.CLONE_NEWPID)
    except OSError as error:
        raise _refused(target, error) from None
    terminal = Terminal.find()
    parent = os.pidfd_open(os.getpid())
    # Held back until the child has the group and the terminal that they should go to.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
    pid = os.fork()
    if not pid:
        _become(fd, parent, list(argv), own_group=terminal is not None)
    # Without a group of its own the command has these from the terminal itself, and we wait for what it makes of them.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    try:
        if terminal is not None:
            _own_group(pid)
            if terminal.ours:
                terminal.give(pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _wait(pid, terminal)
    finally:
        if terminal is not None:
            terminal.take_back()


def _open(target: Sandbox) -> int:
    try:
        fd = os.pidfd_open(target.pid)
    except ProcessLookupError:
        raise TestbedError(f"the sandbox {target.pid} has just ended") from None
    if _inspect(target.pid) != target:  # another process has got the number before the descriptor was made
        raise TestbedError(f"the sandbox {target.pid} has just ended")
    return fd


def _become_owner(target: Sandbox) -> None:
    """Root steps down to the sandbox's owner: what another user has mounted there must not run with root's identity."""
    if target.uid == os.geteuid() or os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(target.gid, target.gid, target.gid)
    os.setresuid(target.uid, target.uid, target.uid)


def _same(first: int, second: int, kind: str) -> bool:
    """Whether two processes are in one namespace of this kind."""
    return os.stat(f"/proc/{first}/ns/{kind}").st_ino == os.stat(f"/proc/{second}/ns/{kind}").st_ino


def _is_foreign(pid: int, kind: str) -> bool:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino


def _refused(target: Sandbox, error: OSError) -> TestbedError:
    return TestbedError(
        f"cannot enter the sandbox {target.pid} ({target.name}) of {target.user}: {error.strerror}",
        "run it as the user who started the sandbox, with sudo if that was done with sudo",
    )


def _own_group(pid: int) -> None:
    try:
        os.setpgid(pid, pid)
    except (PermissionError, ProcessLookupError):
        pass  # it has done so itself and gone on


def _become(fd: int, parent: int, argv: list[str], *, own_group: bool) -> NoReturn:
    """The child's part, inside the PID namespace already."""
    try:
        linux.die_with_parent(signal.SIGHUP)
        if select.select([parent], [], [], 0)[0]:
            os._exit(128 + signal.SIGHUP)  # it had ended before the kernel knew what we asked for
        linux.setns(fd, _INNER)
        os.chdir("/")
        if own_group:
            os.setpgid(0, 0)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.environ["OVS_RUNDIR"] = "/run/openvswitch"
        # serval and servicectl stand beside this Python, as at the prompt.
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        os.execvp(argv[0], argv)
    except OSError as error:
        os._exit(init.report_no_start(argv[0], error))
    finally:
        os._exit(126)


def _wait(pid: int, terminal: Terminal | None) -> int:
    """Waits for the command, and stops and goes on together with it."""
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return init.exit_status(status)
        if terminal is None:
            continue  # whoever stopped it lets it go on
        if not terminal.ours:
            terminal.take_back()
            os.kill(0, signal.SIGTSTP)
        if terminal.ours:
            terminal.give(pid)
        os.killpg(pid, signal.SIGCONT)
