"""The benchmarks end to end, as short as they go: that they measure, say what they did, and keep what they have."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from testbed import processes
from tests.emulation.test_network import nothing_left  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "experiments.benchmarks"]
LIMIT = 120.0


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def result_in(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "latest" / "result.json").read_text())


def metrics(entry: dict[str, Any], variant: str, name: str) -> list[float]:
    found = [
        pair[role]["metrics"][name]
        for pair in entry["pairs"]
        for role in ("subject", "reference")
        if entry["comparisons"][pair["comparison"]][role] == variant and name in pair[role]["metrics"]
    ]
    assert found, f"{entry['name']}: {variant} has no {name}"
    return found


@pytest.mark.usefixtures("nothing_left")
def test_five_benchmarks_quickly(tmp_path: Path) -> None:
    names = ("goodput", "connect-0ms", "router", "false-alarms-20ms-2loss", "relay-frames")
    done = run(*names, "--quick", "--pairs", "1", "--seed", "5", "--results", str(tmp_path))
    result = result_in(tmp_path)
    goodput, connect, router, alarms, relay = result["benchmarks"]
    for entry in result["benchmarks"]:
        assert entry["complete"] and entry["error"] is None
        for comparison in range(len(entry["comparisons"])):
            assert [pair["used"] for pair in entry["pairs"] if pair["comparison"] == comparison].count(True) == 1
    # No figure is asked for here, but no link gives more than it has, and nothing is measured that did not happen.
    for variant in ("tcp", "tcp-single", "serval", "serval-udp"):
        assert all(0.1 < share < 1.05 for share in metrics(goodput, variant, "share")), variant
    assert all(rate > 1e6 for rate in metrics(goodput, "bounce", "goodput"))
    assert min(metrics(connect, "socket-routed", "connect")) > min(metrics(connect, "tcp", "connect")) > 0
    assert min(metrics(alarms, "busy", "seconds")) > 0.9 and sum(metrics(alarms, "busy", "asked")) > 0
    assert min(metrics(relay, "relay", "median")) >= 0, "a frame came before it was due"
    assert min(metrics(relay, "relay", "load")) > 1e6
    # The figures are those of SYNs that came out behind the router; a missing one would have ended the benchmark.
    assert min(metrics(router, "serval", "each")) > 0 and min(metrics(router, "ip", "alone")) > 0
    serval = next(pair["subject"] for pair in goodput["pairs"] if pair["comparison"] == 0)
    assert serval["facts"] == {"mss": 1448, "timestamps": False, "congestion": "cubic"}
    assert goodput["bed"]["offloads"]["tcp-segmentation-offload"] == "on"
    assert result["settings"] == {"pairs": 1, "seed": 5, "quick": True}
    assert result["environment"]["kernel"] and result["environment"]["packages"]["numpy"]
    assert "too few (< 6)" in done.stdout and "about " in done.stdout.splitlines()[0]
    for kind in ("svg", "png"):
        assert list(tmp_path.glob(f"*/goodput.{kind}")) and list(tmp_path.glob(f"*/connect-0ms.{kind}"))


@pytest.mark.usefixtures("nothing_left")
def test_hosts_up_and_down_beside_mininet_alone(tmp_path: Path) -> None:
    run("hosts", "--quick", "--pairs", "1", "--results", str(tmp_path))
    (entry,) = result_in(tmp_path)["benchmarks"]
    assert all(size > 1 for size in metrics(entry, "serval", "node_mib"))
    assert all(seconds > 0 for seconds in metrics(entry, "mininet", "up") + metrics(entry, "serval", "down"))


@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    words = ["connect-0ms", "parallel", "--quick", "--pairs", "500", "--results", str(tmp_path)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + LIMIT
        while not any('"attempt"' in path.read_text() for path in tmp_path.glob("*/result.json")):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT, log.read_text()
    finally:
        process.kill()
        process.wait()
    result = result_in(tmp_path)
    (entry,) = result["benchmarks"]
    assert result["ended"] == "KeyboardInterrupt" and not entry["complete"] and entry["pairs"]
    assert "interrupted: what was measured is kept" in log.read_text()
    assert "connect, kernel TCP" in log.read_text()
    shown = run("--plot", str(tmp_path / "latest" / "result.json"))
    assert "interrupted: fewer pairs than planned" in shown.stdout


def test_a_full_disk_is_refused_before_anything_starts(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    processes.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)])
    try:
        for fill in (0, 64 << 10):
            if fill:
                with pytest.raises(OSError, match="No space left"):
                    (small / "filled").write_bytes(bytes(fill + 1))
            done = run("connect-0ms", "--quick", "--results", str(small), check=False)
            assert done.returncode == 1
            assert f"testbed: the disk of {small}" in done.stderr and "--results DIR" in done.stderr
            assert "connect-0ms:" not in done.stdout
    finally:
        processes.run(["umount", str(small)])
