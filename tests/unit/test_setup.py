"""scripts/setup on a machine made of stand-ins: what it does to the host, and what it says when it cannot go on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    *("bash", "cat", "chmod", "cp", "cut", "dirname", "env", "flock", "grep", "ln", "ls", "mkdir", "mktemp", "mv"),
    *("readlink", "rm", "sed", "sha256sum", "sleep", "sort", "stat", "tail"),
)

APT_GET = """#!/bin/bash
printf '%s\\n' "$*" >>"$MACHINE/apt.log"
case " $* " in
  *" update "*) step=update ;;
  *) step=install; cp "$SETUP_SYSTEM_ROOT/usr/sbin/policy-rc.d" "$MACHINE/policy-seen" ;;
esac
[ ! -e "$MACHINE/$step.sh" ] || . "$MACHINE/$step.sh"
"""
DPKG_QUERY = """#!/bin/bash
while read -r name; do echo "installed $name"; done <"$MACHINE/installed"
exit 1
"""
SYSTEMCTL = """#!/bin/bash
[ "$1" != is-enabled ] || { echo enabled; exit 0; }
printf '%s\\n' "$*" >>"$MACHINE/systemctl.log"
"""
DPKG = """#!/bin/bash
echo "/usr/lib/systemd/system/$2.service"
"""
AS_CALLER = """#!/bin/bash
# Stands for the part that makes .venv: called as as-caller bash TREE/scripts/setup --python STAMP
printf '%s\\n' "$3" >>"$MACHINE/python.log"
tree=${2%/scripts/setup}; mkdir -p "$tree/.venv/bin"; ln -sf /usr/bin/python3 "$tree/.venv/bin/python"
printf '%s\\n' "$4" >"$tree/.venv/.setup-stamp"
"""
ALL_PACKAGES = re.search(r"^PACKAGES=\((.*)\)$", (ROOT / "scripts/setup").read_text(), re.MULTILINE)[1]


class Machine:
    """A directory with an /etc and /usr/sbin of its own and programs that note how they were called."""

    def __init__(self, home: Path, *, uid: int = 0, os_release: str = "ID=debian\nPRETTY_NAME='Debian 12'\n") -> None:
        self.home, self.system, self.bin, self.tree = home, home / "root", home / "bin", home / "tree"
        for directory in (self.bin, self.system / "etc", self.system / "usr/sbin", self.tree / "scripts"):
            directory.mkdir(parents=True)
        for name in ("scripts/setup", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.tree / name)
        self.program("../tree/scripts/as-caller", AS_CALLER)
        (self.system / "etc/os-release").write_text(os_release)
        self.policy = self.system / "usr/sbin/policy-rc.d"
        self.installed("")
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        self.program("id", f"#!/bin/bash\necho {uid}\n")
        self.program("apt-get", APT_GET)
        self.program("dpkg-query", DPKG_QUERY)
        self.program("dpkg", DPKG)
        self.program("systemctl", SYSTEMCTL)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def installed(self, names: str) -> None:
        (self.home / "installed").write_text("".join(f"{name}\n" for name in names.split()))

    def during(self, step: str, commands: str) -> None:
        """Commands that the stand-in of apt-get runs at "update" or "install"."""
        (self.home / f"{step}.sh").write_text(commands)

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def start(self, *arguments: str, above: Sequence[str] = ()) -> subprocess.Popen[str]:
        environment = {"PATH": str(self.bin), "MACHINE": str(self.home), "SETUP_SYSTEM_ROOT": str(self.system)}
        return subprocess.Popen(
            [*above, self.tree / "scripts/setup", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Tests that run behind `&` would hand on that Ctrl-C is ignored, and then no shell can take it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, above: Sequence[str] = ()) -> tuple[int, str]:
        with self.start(*arguments, above=above) as process:
            output, _ = process.communicate(timeout=30)
        return process.returncode, output


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def test_nothing_missing_is_fast_and_calls_nothing(machine: Machine) -> None:
    machine.installed(ALL_PACKAGES)
    assert machine.run() == (0, "")
    started = time.monotonic()
    assert machine.run() == (0, "")
    assert time.monotonic() - started < 1
    assert machine.log("apt") == ""
    assert machine.log("python") == "--python\n"  # the first run's


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "scripts/setup"])
def test_a_changed_input_installs_again(machine: Machine, name: str) -> None:
    machine.installed(ALL_PACKAGES)
    machine.run()
    with (machine.tree / name).open("a") as file:
        file.write("# changed\n")
    assert machine.run() == (0, "")
    assert machine.log("python") == "--python\n" * 2


def test_only_missing_packages_are_installed(machine: Machine) -> None:
    machine.installed(ALL_PACKAGES.replace("ethtool ", ""))
    machine.during("install", 'echo ethtool >>"$MACHINE/installed"')
    status, output = machine.run()
    assert status == 0, output
    update, install = machine.log("apt").splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends ethtool")
    assert machine.log("systemctl") == ""  # an Open vSwitch that was there stays enabled or not, as it was


def test_a_new_service_may_not_start_and_is_not_left_enabled(machine: Machine) -> None:
    assert machine.run("--packages", "openvswitch-switch", "tcpdump")[0] == 0
    assert "exit 101" in (machine.home / "policy-seen").read_text()
    assert not machine.policy.exists()
    assert machine.log("systemctl").splitlines() == ["-q --no-reload disable openvswitch-switch.service"]


def test_the_machines_own_policy_comes_back(machine: Machine) -> None:
    machine.policy.write_text("#!/bin/sh\nexit 0\n")
    machine.policy.chmod(0o750)
    machine.during("install", "exit 100")
    status, _ = machine.run("--packages", "mininet")
    assert status == 1
    assert "exit 101" in (machine.home / "policy-seen").read_text()
    assert machine.policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert machine.policy.stat().st_mode & 0o777 == 0o750
    assert list(machine.policy.parent.iterdir()) == [machine.policy]


@pytest.mark.parametrize("own_policy", [None, "#!/bin/sh\nexit 104\n"])
def test_ctrl_c_restores_the_policy(machine: Machine, own_policy: str | None) -> None:
    if own_policy:
        machine.policy.write_text(own_policy)
    machine.during("install", 'trap "exit 130" INT; : >"$MACHINE/waiting"; while :; do sleep 0.05; done')
    with machine.start("--packages", "mininet") as process:
        deadline = time.monotonic() + 10
        try:
            while not (machine.home / "waiting").exists():
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=10)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert (machine.policy.read_text() if machine.policy.exists() else None) == own_policy


def test_what_a_killed_run_left_is_put_right(machine: Machine) -> None:
    machine.policy.write_text("#!/bin/sh\nexit 0\n")
    machine.during("install", "kill -9 $PPID; sleep 0.1")
    assert machine.run("--packages", "mininet")[0] == -signal.SIGKILL
    assert "exit 101" in machine.policy.read_text()
    machine.during("install", "true")
    assert machine.run("--packages", "mininet")[0] == 0
    assert machine.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_another_installation_is_waited_for(machine: Machine) -> None:
    machine.during(
        "update",
        'rm "$MACHINE/update.sh"; echo "E: Could not get lock /var/lib/apt/lists/lock"; exit 100',
    )
    status, output = machine.run("--packages", "mininet")
    assert status == 0, output
    assert "waiting for it" in output


def test_no_network_is_named(machine: Machine) -> None:
    machine.during("update", "exit 100")
    machine.during("install", "exit 100")
    status, output = machine.run("--packages", "mininet", "iperf3")
    assert status == 1
    assert "is there a network" in output
    assert "apt-get install --no-install-recommends mininet iperf3" in output


def test_neither_root_nor_sudo(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", uid=1000)
    status, output = machine.run()
    assert status == 1
    assert "neither root nor is sudo installed" in output
    assert "mininet openvswitch-switch" in output
    assert machine.log("apt") == machine.log("python") == ""


def test_a_user_calls_sudo_for_the_packages_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", uid=1000)
    machine.installed(ALL_PACKAGES.replace("curl ", ""))
    machine.program("sudo", '#!/bin/bash\necho "$*" >>"$MACHINE/sudo.log"\necho curl >>"$MACHINE/installed"\n')
    status, output = machine.run()
    assert status == 0, output
    assert machine.log("sudo") == f"env bash {machine.tree}/scripts/setup --packages curl\n"


def test_an_unknown_distribution_is_told_what_to_install(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", os_release="ID=fedora\nPRETTY_NAME='Fedora Linux 41'\n")
    status, output = machine.run()
    assert status == 1
    assert "Fedora Linux 41" in output
    assert "install by hand: Mininet 2.3, Open vSwitch" in output
    assert "Still missing: mnexec" in output
    assert machine.log("apt") == ""


@pytest.mark.parametrize("version", ["3.9.2", "3.14.0"])
def test_a_python_that_is_too_old_or_too_new_is_named(machine: Machine, version: str) -> None:
    machine.installed(ALL_PACKAGES)
    python = machine.bin / "python3"
    # Answers setup's two questions: whether it is one that will do, and which one it is.
    machine.program("python3", f'#!/bin/bash\ncase "$*" in *version_info*) exit 1 ;; *) echo {version} ;; esac\n')
    script = machine.tree / "scripts/setup"
    script.write_text(script.read_text().replace("PYTHON=/usr/bin/python3", f"PYTHON={python}"))
    status, output = machine.run()
    assert status == 1
    assert output.startswith(f"setup: {python} is {version}; the testbed needs 3.10 to 3.13 (Debian 12 and 13, ")
    assert machine.log("python") == ""


def test_what_setup_takes_for_a_good_python() -> None:
    condition = re.search(r"sys\.exit\((not .*)\)'", (ROOT / "scripts/setup").read_text())[1]
    for minor, good in ((9, False), (10, True), (13, True), (14, False)):
        expression = condition.replace("sys.version_info", f"(3, {minor}, 1)")
        assert eval(expression) is not good, expression


def test_an_environment_of_another_tree_is_not_emptied_through_a_link(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("another tree's")
    (machine.tree / ".venv").symlink_to(other)
    status, output = machine.run("--python", "stamp")
    assert status == 1
    assert output.startswith(f"setup: {machine.tree}/.venv is a link to {other};")
    assert "Remove the link" in output
    assert (other / "kept").exists()


def test_a_tree_that_cannot_be_written_is_named(machine: Machine) -> None:
    machine.tree.chmod(0o555)
    # Root may write everywhere, unless it gives that up.
    drop = ("--bounding-set=-all", "--inh-caps=-all")
    above = [str(shutil.which("setpriv")), *drop] if os.access(machine.tree, os.W_OK) else []
    try:
        status, output = machine.run("--python", "stamp", above=above)
    finally:
        machine.tree.chmod(0o755)
    assert status == 1
    assert output.startswith(f"setup: cannot write in {machine.tree}, where .venv is to be made: whose is it?")


def test_an_environment_of_another_python_or_place_is_made_anew(machine: Machine) -> None:
    """Moved trees and new Pythons: the stamp's first line names both."""
    environment = machine.tree / ".venv"
    environment.mkdir()
    (environment / ".setup-stamp").write_text("of another place\nand what was installed\n")
    python = machine.bin / "python3"
    machine.program("python3", f'#!/bin/bash\necho "$*" >>"$MACHINE/made.log"; mkdir -p {environment}; exit 1\n')
    script = machine.tree / "scripts/setup"
    script.write_text(script.read_text().replace("PYTHON=/usr/bin/python3", f"PYTHON={python}"))
    status, output = machine.run("--python", "stamp")
    assert status == 1
    assert machine.log("made") == f"-m venv --clear --system-site-packages {environment}\n"
    assert f"{python} could not make a virtual environment in {environment}" in output
