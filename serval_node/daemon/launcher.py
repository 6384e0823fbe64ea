"""One imported parent that forks the daemons of a whole network.

Starting 200 daemons by exec costs 50-100 ms and 13-20 MiB each, by fork a few milliseconds and 2-3 MiB
(docs/architecture.md). The parent imports everything, numpy included, freezes the garbage collector's
generations so that collections do not copy its pages, and stays single-threaded: setns and fork act on one
thread.

Requests and reports are JSON objects over a SOCK_SEQPACKET unix socket, one per packet:

    {"op": "start", "config": {...}, "pid": 1234}    start a node in the namespaces of process 1234
    {"op": "stop", "name": "dan"}                    SIGTERM, SIGKILL when it takes longer than STOP_LIMIT
    {"op": "list"}                                   {"nodes": {"dan": 77, ...}}

    {"event": "ready", "name": "dan", "pid": 77, "warnings": [...]}
    {"event": "failed", "name": "dan", "error": "one line"}
    {"event": "exit", "name": "dan", "pid": 77, "status": 0}
    {"event": "error", "error": "one line"}          the request itself was wrong

Reports go to the connection that started the node.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from serval_node.daemon import namespace
from serval_node.daemon.config import ConfigError, NodeConfig
from serval_node.daemon.log import log
from serval_node.daemon.loop import EventLoop, Timer

DEFAULT_PATH = "/run/testbed/launcher.sock"
MAX_MESSAGE = 1 << 20
STOP_LIMIT = 3.0

# run_node(config, controller_socket, report_ready) serves until it is told to stop; returns the exit status.
RunNode = Callable[[NodeConfig, "Callable[[], socket.socket] | None", Callable[[list[str]], None]], int]


class LauncherError(RuntimeError):
    """The launcher cannot start or answer; one clear line."""


@dataclass(slots=True)
class _Node:
    name: str
    pid: int
    pidfd: int
    status_fd: int
    client: _Connection
    report: bytes = b""
    ready: bool = False
    killer: Timer | None = None


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    open: bool = True


class Launcher:
    """The parent. `run_node` is what a child becomes."""

    def __init__(self, path: str, run_node: RunNode) -> None:
        self._path = path
        self._run_node = run_node
        self._loop = EventLoop()
        self._nodes: dict[str, _Node] = {}
        self._namespace = namespace.open_namespace("self", "net")
        self._clients: set[_Connection] = set()
        self._server = _listen(path)

    def serve(self, *, ready: Callable[[], None] | None = None) -> None:
        """Serve until SIGTERM or SIGINT, then stop every node."""
        threads = namespace.thread_count()
        if threads != 1:
            raise LauncherError(f"the launcher has {threads} threads; it must have one to fork and setns")
        self._loop.on_signal(lambda _number: self._shut_down(), signal.SIGTERM, signal.SIGINT)
        self._loop.add_reader(self._server.fileno(), self._accept)
        gc.collect()
        gc.freeze()
        if ready is not None:
            ready()
        try:
            self._loop.run()
        finally:
            self._server.close()
            if os.path.exists(self._path):
                os.unlink(self._path)

    # -- requests

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        connection.setblocking(False)
        client = _Connection(connection)
        self._clients.add(client)
        self._loop.add_reader(connection.fileno(), lambda: self._request(client))

    def _request(self, client: _Connection) -> None:
        try:
            data = client.socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(client.socket.fileno())
            client.open = False
            client.socket.close()
            self._clients.discard(client)
            return
        try:
            request = json.loads(data)
            self._handle(client, request if isinstance(request, dict) else {})
        except (ValueError, ConfigError, LauncherError) as error:
            self._send(client, {"event": "error", "error": str(error)})

    def _handle(self, client: _Connection, request: dict[str, Any]) -> None:
        op = request.get("op")
        if op == "start":
            pid = request.get("pid")
            if not isinstance(pid, int):
                raise LauncherError("start needs 'pid', a process inside the host")
            self._start(client, NodeConfig.from_json(request.get("config")), pid)
        elif op == "stop":
            node = self._nodes.get(str(request.get("name")))
            if node is None:
                raise LauncherError(f"no node {request.get('name')!r} is running")
            self._stop(node)
        elif op == "list":
            self._send(client, {"event": "list", "nodes": {node.name: node.pid for node in self._nodes.values()}})
        else:
            raise LauncherError(f"unknown op {op!r}; known: start, stop, list")

    def _send(self, client: _Connection, message: dict[str, Any]) -> None:
        if client.open:
            try:
                client.socket.send(json.dumps(message).encode())
            except OSError:
                client.open = False  # its reader sees the end of the connection and cleans up

    # -- children

    def _start(self, client: _Connection, config: NodeConfig, host_pid: int) -> None:
        if config.name in self._nodes:
            raise LauncherError(f"a node {config.name!r} is already running (process {self._nodes[config.name].pid})")
        os.makedirs(config.run_dir, exist_ok=True)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._child(config, host_pid, writer)
        os.close(writer)
        os.set_blocking(reader, False)
        node = _Node(config.name, pid, os.pidfd_open(pid), reader, client)
        self._nodes[config.name] = node
        self._loop.add_reader(reader, lambda: self._status(node))
        self._loop.add_reader(node.pidfd, lambda: self._exited(node))

    def _child(self, config: NodeConfig, host_pid: int, writer: int) -> NoReturn:
        """Become the node: never returns into the parent's loop, whatever happens."""
        status = 1
        try:
            os.setsid()
            namespace.die_with_parent(signal.SIGTERM)
            sandbox = self._namespace
            self._forget_parent(keep=(writer, sandbox))
            _redirect_output(config.log_path)
            namespace.enter_host(host_pid)

            def report_ready(warnings: list[str]) -> None:
                os.write(writer, json.dumps({"ready": True, "warnings": warnings}).encode())
                os.close(writer)

            status = self._run_node(config, lambda: namespace.socket_in(sandbox), report_ready)
        except (OSError, RuntimeError, ValueError) as error:
            log(f"servald: {error}")
            try:
                os.write(writer, json.dumps({"error": str(error)}).encode())
            except OSError:
                pass  # it had reported ready before: the log line above is the report
        except BaseException:  # noqa: BLE001 - the child must not unwind into the parent's loop; the log gets the story
            log(traceback.format_exc())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _forget_parent(self, keep: tuple[int, ...]) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self._loop.close()
        self._server.close()
        for client in self._clients:
            client.socket.close()
        for node in self._nodes.values():
            os.close(node.pidfd)
            if not node.ready:
                os.close(node.status_fd)
        self._nodes.clear()
        assert all(fd > 2 for fd in keep)

    def _status(self, node: _Node) -> None:
        data = os.read(node.status_fd, 65536)
        if data:
            node.report += data
            return
        self._loop.remove_reader(node.status_fd)
        os.close(node.status_fd)
        node.ready = True
        report = json.loads(node.report) if node.report else {"error": "servald ended before it was ready"}
        if "error" in report:
            self._send(node.client, {"event": "failed", "name": node.name, "error": report["error"]})
        else:
            message = {"event": "ready", "name": node.name, "pid": node.pid, "warnings": report["warnings"]}
            self._send(node.client, message)

    def _exited(self, node: _Node) -> None:
        if not node.ready:
            self._status(node)  # what it wrote, then the end of the pipe
            if not node.ready:
                self._status(node)
        self._loop.remove_reader(node.pidfd)
        os.close(node.pidfd)
        if node.killer is not None:
            node.killer.cancel()
        _, wait_status = os.waitpid(node.pid, 0)
        del self._nodes[node.name]
        status = os.waitstatus_to_exitcode(wait_status)
        self._send(node.client, {"event": "exit", "name": node.name, "pid": node.pid, "status": status})

    def _stop(self, node: _Node) -> None:
        signal.pidfd_send_signal(node.pidfd, signal.SIGTERM)
        if node.killer is None:
            node.killer = self._loop.call_later(
                STOP_LIMIT, lambda: signal.pidfd_send_signal(node.pidfd, signal.SIGKILL)
            )

    def _shut_down(self) -> None:
        for node in list(self._nodes.values()):
            self._stop(node)
        self._await_end(time.monotonic() + STOP_LIMIT + 1)

    def _await_end(self, deadline: float) -> None:
        if not self._nodes or time.monotonic() > deadline:
            self._loop.stop()
        else:
            self._loop.call_later(0.01, lambda: self._await_end(deadline))


def _listen(path: str) -> socket.socket:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)  # left by a launcher that was killed
        except OSError as error:
            raise LauncherError(f"cannot use {path}: {error.strerror}") from None
        else:
            raise LauncherError(f"another launcher is listening on {path}")
    server.bind(path)
    server.listen()
    server.setblocking(False)
    return server


def _redirect_output(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """`python -m serval_node.daemon.launcher`: prints "ready" when it listens."""
    parser = argparse.ArgumentParser(prog="serval-launcher", description="Parent of the node daemons of one network.")
    parser.add_argument(
        "--socket", default=DEFAULT_PATH, help=f"where to listen for start requests (default {DEFAULT_PATH})"
    )
    options = parser.parse_args(arguments)
    # OpenBLAS would start a thread per core at numpy's import.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from serval_node.daemon.servald import import_everything, run_node

    import_everything()
    try:
        Launcher(options.socket, run_node).serve(ready=lambda: _say("ready"))
    except (LauncherError, namespace.NamespaceError, OSError) as error:
        sys.stderr.write(f"serval-launcher: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
