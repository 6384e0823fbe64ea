"""The controller's process: how it is started, where it listens, when it is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import frameworks, processes, sandbox

RUN_DIRECTORY = Path("/run/testbed")
CONTROLLER_SOCKET = RUN_DIRECTORY / "controller.sock"
CONTROLLER_HOST, CONTROLLER_PORT = "127.0.0.1", 6653


def launch_controller(
    providers: Mapping[str, int],
    logs: Path,
    *,
    host: str = CONTROLLER_HOST,
    port: int = CONTROLLER_PORT,
    options: Sequence[str] = (),
) -> processes.Daemon:
    """Start the controller process for these provider blocks, without waiting for it; raises TestbedError.

    options  more of the command line of controllers.run
    """
    RUN_DIRECTORY.mkdir(parents=True, exist_ok=True)
    python = frameworks.interpreter(frameworks.chosen())
    argv = [python, "-m", "controllers.run", "--host", host, "--port", str(port), "--socket", str(CONTROLLER_SOCKET)]
    for label, block in providers.items():
        argv += ["--provider", f"{label}={block:#x}"]
    argv += options
    return processes.start("the controller", argv, log=logs / "controller.log", cwd=sandbox.ROOT)


def controller_ready(controller: processes.Daemon) -> bool:
    """Whether it listens by now."""
    return "controller ready" in controller.printed()
