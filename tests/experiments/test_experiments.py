"""Experiments end to end, as short as they go: they run, the bytes are right, all is kept, nothing is left behind.

No figure is judged here: a machine that runs tests says nothing about speed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from testbed.experiment import catalogue, summary
from tests.emulation.test_network import nothing_left  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
FIRST = [sys.executable, "docs/first_experiment.py"]
LIMIT = 120.0


def run(command: list[str], *words: str) -> str:
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def result_in(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "latest" / "result.json").read_text())


def check_runs(result: dict[str, Any]) -> None:
    """Every run of the plan went through, every byte that came was right, and some came."""
    assert result["ended"] is None and not summary.wrong_bytes(result)
    assert [run["failed"] for run in result["runs"]] == [None] * len(result["plan"])
    for one in result["runs"]:
        where = (one["number"], one["contender"])
        answered = 0
        for name, item in one["traffic"].items():
            requests = item.get("requests", ())
            assert item.get("bytes", 0) or requests, (where, name)
            answered += sum(each["error"] is None for each in requests)
        assert answered or any(item.get("bytes", 0) for item in one["traffic"].values()), where
        assert set(one["metrics"]) == {metric["name"] for metric in result["experiment"]["metrics"]}
        assert one["fidelity"]["lag"]["max"] > 0 and one["zero"] > 0


@pytest.mark.usefixtures("nothing_left")
def test_the_first_experiment_of_the_guide(tmp_path: Path) -> None:
    said = run(FIRST, "--quick", "--seed", "5", "--results", str(tmp_path))
    result = result_in(tmp_path)
    check_runs(result)
    assert {one["contender"] for one in result["runs"]} == {"serval", "tcp"}
    for one in result["runs"]:
        down, up = (event["at"] for event in one["events"])
        assert down >= 0.4 and up - down >= 0.1
        # As long as the link is down nothing can come.
        assert one["metrics"]["gap"] >= 0.9 * (up - down)
        flow = one["traffic"]["flow"]
        whole = [count for number, count in enumerate(flow["received"]) if down + 0.02 < number * 0.01 < up - 0.02]
        assert whole and not any(whole)
        sent = one["counters"]["dan"]["interfaces"]["dan-eth0"]["tx_bytes"]
        assert sent > sum(flow["received"]) > 0
        assert one["facts"]["links"] and one["facts"]["offloads"]["ann-eth0"]["tcp-segmentation-offload"] == "on"
    serval = next(one for one in result["runs"] if one["contender"] == "serval")
    assert serval["counters"]["ann"]["node"]["fast_bytes_in"] > 0
    home = tmp_path / "latest"
    events = [json.loads(line) for line in (home / "events.jsonl").read_text().splitlines()]
    assert len(events) == 4 and abs(events[0]["realtime"] - time.time()) < LIMIT
    manifest = json.loads((home / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 5 and "runs" not in manifest
    assert manifest["manifest"]["sysctls"]["net.ipv4.tcp_congestion_control"] and manifest["scenes"][0]["events"]
    assert list(home.glob("logs/run-001-*/hosts/ann/servald.log")) and list(home.glob("logs/*/controller.log"))
    assert "CANNOT TELL  data flows again: a quick run only shows that it works" in said
    results = [sys.executable, "-m", "testbed.experiment"]
    assert run(results, "show", str(home)) in said
    assert (Path(run(results, "export", str(home), "--csv").split()[0])).name == "runs.csv"


@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["--runs", "500", "--set", "down=0.4", "--set", "pause=0.1", "--results", str(tmp_path)]
    with log.open("wb") as output:
        process = subprocess.Popen([*FIRST, *words], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
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
    result, said = result_in(tmp_path), log.read_text()
    assert result["ended"] == "KeyboardInterrupt" and 1 <= len(result["runs"]) < 10
    assert "Traceback" not in said and "interrupted: what was measured is kept" in said
    assert "ended early: KeyboardInterrupt" in said
    # The links were measured before.
    (measured,) = result["calibration"]
    assert measured["error"] is None and measured["paths"][0]["quantities"][0]["achieved"] > 0
    assert f"  ann - dan: {measured['paths'][0]['source']}" not in said and "ann - dan: rate " in said


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.statement("E1", "E2", "E3", "E4", "E8", "E9")
@pytest.mark.parametrize("name", catalogue.names())
def test_every_experiment_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"experiments.{name}"]
    # One point: a sweep's other ends differ in numbers only.
    words = ["--quick", "--runs", "1", "--points", "1", "--seed", "1", "--no-report"]
    run(command, *words, "--results", str(tmp_path))
    check_runs(result_in(tmp_path))
