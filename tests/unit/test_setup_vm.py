"""scripts/setup-vm: what it refuses, and that it leaves a tree alone that is ready. Nothing is installed or fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup-vm"


class Machine:
    """A tree with the script in it, and programs of its own that come first on PATH."""

    def __init__(self, directory: Path) -> None:
        self.tree = directory / "tree"
        (self.tree / "scripts").mkdir(parents=True)
        shutil.copy(SCRIPT, self.tree / "scripts")
        self._programs = directory / "bin"
        self._programs.mkdir()
        self.program("apt-get", 'echo "apt-get $*" >&2; exit 100')
        self.program("dpkg-query", "shift 3; printf 'installed %s\\n' \"$@\"")

    def program(self, name: str, body: str) -> None:
        path = self._programs / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{self._programs}:{os.environ['PATH']}"
        argv = ["bash", str(self.tree / "scripts/setup-vm"), *arguments]
        return subprocess.run(
            argv, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=30, check=False
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_tree_that_is_ready_is_left_alone(machine: Machine) -> None:
    (machine.tree / ".vm/kernel").mkdir(parents=True)
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_another_processor_is_refused(machine: Machine) -> None:
    machine.program("uname", "echo riscv64")
    done = machine.run()
    assert done.returncode == 1 and "x86_64 only, and this is riscv64" in done.stderr


def test_no_known_kernel_is_told(machine: Machine) -> None:
    machine.program("apt-cache", "exit 0")
    done = machine.run()
    assert done.returncode == 1 and "apt knows neither of" in done.stderr and "apt-get update" in done.stderr


def test_a_missing_package_server_is_told(machine: Machine) -> None:
    machine.program("dpkg-query", "exit 1")
    machine.program("id", "echo 0")
    done = machine.run()
    assert done.returncode == 1 and "apt reached no package server" in done.stderr
    assert "installing qemu-system-x86" in done.stdout


def test_a_kernel_that_cannot_be_fetched_leaves_nothing(machine: Machine) -> None:
    machine.program("apt-cache", 'case $2 in linux-image-cloud-*) echo "  Depends: linux-image-6.1.0-1-cloud";; esac')
    done = machine.run("--kernel", "linux-image-cloud-amd64")
    assert done.returncode == 1 and "apt could not fetch the guest's kernel" in done.stderr
    assert list((machine.tree / ".vm").iterdir()) == []


def test_a_wrong_argument_is_refused(machine: Machine) -> None:
    assert machine.run("--kernels").returncode == 1
