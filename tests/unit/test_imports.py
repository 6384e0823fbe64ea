"""Imports point one way (docs/architecture.md, "Rooms"): each room may import only the rooms listed for it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WIRE, SAL, IO = "serval_node.wire", "serval_node.sal", "serval_node.io"
CONTROL, CAPTURE, DAEMON = "serval_node.control", "serval_node.capture", "serval_node.daemon"
APPLICATION, DATAGRAMS = "serval_node.application", "serval_node.datagram_socket"
SOCKET, CLI = "serval_node.socket", "serval_node.cli"
VM, GUEST = "testbed.vm", "testbed.vm.guest"

MAY_IMPORT: dict[str, frozenset[str]] = {
    "serval_node": frozenset(),  # the package's own __init__
    WIRE: frozenset(),
    SAL: frozenset({WIRE}),
    IO: frozenset({WIRE, SAL}),
    CONTROL: frozenset({WIRE}),
    CAPTURE: frozenset({WIRE}),
    DAEMON: frozenset({WIRE, SAL, IO, CONTROL, CAPTURE}),
    APPLICATION: frozenset({WIRE, CONTROL}),
    DATAGRAMS: frozenset({WIRE, APPLICATION}),
    SOCKET: frozenset({WIRE, APPLICATION, DATAGRAMS}),
    CLI: frozenset({WIRE, CONTROL, SOCKET}),
    "controllers": frozenset({WIRE, CONTROL}),
    "topologies": frozenset(),
    "testbed": frozenset({CONTROL, "topologies"}),
    VM: frozenset({WIRE, CAPTURE, "testbed", GUEST}),
    GUEST: frozenset({IO, CONTROL, DAEMON}),  # runs in the guest, where servald is
    "experiments": frozenset({"testbed", VM, "topologies", SOCKET, WIRE}),
    "labs": frozenset({"testbed", "topologies", SOCKET}),
}
"""A room may also import itself. Rooms that are not listed here must be added together with what they may import."""

OURS = frozenset(room.partition(".")[0] for room in MAY_IMPORT)
PURE = (WIRE, SAL)
IMPURE = frozenset({"asyncio", "logging", "os", "select", "selectors", "subprocess", "threading", "time"})
SOCKET_TEXT_FORMS = frozenset({"AF_INET", "inet_aton", "inet_ntoa", "inet_pton", "inet_ntop"})
"""What a pure room may use of the socket module: conversions of text, which open nothing."""
FRAMEWORKS = frozenset({"os_ken", "ryu"})


def module_name(path: Path) -> str:
    """serval_node/wire/ipv4.py -> serval_node.wire.ipv4; a package's __init__ has the package's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room with the longest name that `module` is in, None for a module that is not ours."""
    candidates = [room for room in MAY_IMPORT if module == room or module.startswith(room + ".")]
    if module.startswith("serval_node.") and candidates == ["serval_node"]:
        raise AssertionError(f"{module} is in no room that tests/unit/test_imports.py knows")
    return max(candidates, key=len, default=None)


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, imported module) of every import in `source`, also those inside functions; relative names resolved.

    `from a import b` yields a.b: b may be a module, and if it is a name, a.b is still in a's room.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def our_files() -> list[Path]:
    return sorted(path for top in sorted(OURS) for path in (ROOT / top).rglob("*.py"))


def imports_in(path: Path) -> list[tuple[int, str]]:
    return list(imports_of(path.read_text(), module_name(path), is_package=path.name == "__init__.py"))


def violations(module: str, imports: list[tuple[int, str]]) -> list[str]:
    room = room_of(module)
    assert room is not None
    allowed = MAY_IMPORT[room] | {room}
    found = []
    for line, name in imports:
        if name.partition(".")[0] not in OURS:
            continue
        if name in OURS or room_of(name) in allowed:
            continue
        found.append(f"{module}:{line} imports {name}; {room} may import only {', '.join(sorted(allowed))}")
    return found


def test_rooms_import_only_what_they_may() -> None:
    found = [text for path in our_files() for text in violations(module_name(path), imports_in(path))]
    assert not found, "\n".join(found)


def test_pure_rooms_touch_no_clock_and_no_system() -> None:
    found = [
        f"{module_name(path)}:{line} imports {name}"
        for path in our_files()
        if room_of(module_name(path)) in PURE
        for line, name in imports_in(path)
        if name.partition(".")[0] in IMPURE
    ]
    assert not found, "\n".join(found)


def socket_uses(source: str) -> set[str]:
    """Names of the socket module that `source` uses, in either spelling."""
    used = {name for _, name in imports_of(source, "x", is_package=False) if name.startswith("socket.")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "socket":
            used.add(f"socket.{node.attr}")
    return {name.removeprefix("socket.") for name in used}


def test_pure_rooms_open_no_socket() -> None:
    assert socket_uses("import socket\nsocket.socket()") == socket_uses("from socket import socket") == {"socket"}
    for path in our_files():
        if room_of(module_name(path)) in PURE:
            assert socket_uses(path.read_text()) <= SOCKET_TEXT_FORMS, path


def test_pure_rooms_use_the_standard_library_only() -> None:
    found = [
        f"{module_name(path)}:{line} imports {name}"
        for path in our_files()
        if room_of(module_name(path)) in PURE
        for line, name in imports_in(path)
        if name.partition(".")[0] not in OURS | sys.stdlib_module_names
    ]
    assert not found, "\n".join(found)


def test_topologies_need_only_mininet() -> None:
    found = [
        f"{module_name(path)}:{line} imports {name}"
        for path in our_files()
        if room_of(module_name(path)) == "topologies"
        for line, name in imports_in(path)
        if name.partition(".")[0] not in {"mininet", "topologies"} | sys.stdlib_module_names
    ]
    assert not found, "\n".join(found)


def test_one_module_imports_the_controller_framework() -> None:
    users = {
        module_name(path)
        for path in our_files()
        for _, name in imports_in(path)
        if name.partition(".")[0] in FRAMEWORKS
    }
    assert users <= {"controllers.framework"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("serval_node.wire.ipv4", "from serval_node.sal import stack"),
        ("serval_node.wire.ipv4", "from ..sal.stack import Stack"),
        ("serval_node.wire.ipv4", "def f():\n    import serval_node.io.tun"),
        ("serval_node.sal.stack", "from serval_node import io"),
        ("serval_node.io.tun", "from serval_node.daemon.config import NodeConfig"),
        ("controllers.rules", "from serval_node.sal.service_table import Rule"),
        ("testbed.network", "import serval_node.daemon.launcher"),
        ("topologies.datacenter", "from testbed import network"),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert violations(module, list(imports_of(source, module, is_package=False)))


def test_an_unknown_room_is_seen() -> None:
    with pytest.raises(AssertionError, match="no room"):
        room_of("serval_node.elsewhere.thing")
