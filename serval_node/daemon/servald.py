"""servald: one process and one event loop per host."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from serval_node.daemon import namespace
from serval_node.daemon.config import ConfigError, NodeConfig
from serval_node.daemon.control_server import ControlPathError
from serval_node.daemon.dns import hosts_file, resolv_conf
from serval_node.daemon.log import log
from serval_node.daemon.loop import EventLoop
from serval_node.daemon.node import Node
from serval_node.daemon.resolver import ResolverError
from serval_node.io.datapath import vector_available
from serval_node.io.tun import TunError

RUN_DIR_IN_HOST = "/run/serval"

StartError = (ConfigError, ControlPathError, ResolverError, TunError, namespace.NamespaceError, ValueError, OSError)
"""What a node may fail with at its start, each with a text for the user."""


def run_node(
    config: NodeConfig,
    make_socket: Callable[[], socket.socket] | None,
    report_ready: Callable[[list[str]], None],
    *,
    private_files: bool = True,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises what StartError lists.

    `make_socket` makes the controller channel's sockets (None: here). With `private_files` the host's
    /etc/resolv.conf, /etc/hosts and /run/serval are covered in this process's mount namespace. `report_ready`
    gets the warnings, once.
    """
    loop = EventLoop()
    # The handlers stand before anything that a signal during the start would leave behind.
    loop.on_signal(lambda _number: loop.stop(), signal.SIGTERM, signal.SIGINT)
    os.makedirs(config.run_dir, exist_ok=True)
    if private_files:
        _cover_files(config)
    node = Node(config, loop, make_socket)
    try:
        # What the start made lives as long as the process; collecting over it again and again costs
        # milliseconds.
        gc.freeze()
        log(f"servald of {config.name} is ready (process {os.getpid()})")
        for warning in node.warnings:
            log(f"warning: {warning}")
        report_ready(node.warnings)
        loop.run()
    finally:
        node.close()
        loop.close()
    log(f"servald of {config.name} has stopped")
    return 0


def import_everything() -> None:
    """Import what a node would import later, so that children of one parent share it."""
    if vector_available():
        for module in ("numpy", "serval_node.io.datapath_rx_vector", "serval_node.io.datapath_tx_vector"):
            importlib.import_module(module)


def _cover_files(config: NodeConfig) -> None:
    Path(config.resolv_path).write_text(resolv_conf())
    Path(config.hosts_path).write_text(hosts_file(config.name, config.hosts))
    if os.path.realpath(config.run_dir) != RUN_DIR_IN_HOST and not _same(config.run_dir, RUN_DIR_IN_HOST):
        namespace.bind_mount(config.run_dir, RUN_DIR_IN_HOST)
    for source, target in ((config.resolv_path, "/etc/resolv.conf"), (config.hosts_path, "/etc/hosts")):
        if not _same(source, target):
            namespace.bind_mount(source, target)


def _same(one: str, other: str) -> bool:
    """Whether both paths show one file: a daemon that is started again finds its host's files covered already."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m serval_node.daemon --config FILE`: a node without the testbed, in the namespaces of the
    caller.
    """
    parser = argparse.ArgumentParser(
        prog="servald",
        description="The Serval node of this host or network namespace: sal0, service table, names, control socket.",
        epilog='The smallest configuration is {"name": "ann"}; serval_node/daemon/config.py describes every key.',
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="JSON configuration of the node")
    parser.add_argument(
        "--private-files",
        action="store_true",
        help="let this mount namespace see the node's own /etc/resolv.conf, /etc/hosts and /run/serval "
        "(refused in the mount namespace of the whole machine)",
    )
    options = parser.parse_args(arguments)
    try:
        config = NodeConfig.load(options.config)
        return run_node(config, None, _print_ready, private_files=options.private_files)
    except StartError as error:
        sys.stderr.write(f"servald: {_line(error)}\n")
        return 1


def _print_ready(warnings: list[str]) -> None:
    for warning in warnings:
        sys.stderr.write(f"servald: warning: {warning}\n")
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _line(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return (
            f"{error.strerror or error}: a node needs root, or CAP_NET_ADMIN and CAP_NET_RAW in its network namespace"
        )
    return str(error)
