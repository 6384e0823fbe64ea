"""Modules of this project as one zip file, from which a guest's Python imports them."""

from __future__ import annotations

import ast
import importlib.util
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from testbed.errors import TestbedError

PACKAGES = ("experiments", "testbed", "topologies")
"""What is given to a guest where a module imports it; serval_node is there already."""


def bundle(modules: Sequence[str]) -> bytes:
    """The sources of these modules, and of all of ours that they import when they are imported; raises TestbedError."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files(modules).items()):
            archive.writestr(name, path.read_bytes())
    return packed.getvalue()


def files(modules: Sequence[str]) -> dict[str, Path]:
    """Name in the zip file -> source."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _source(module)
        if path is None:
            raise TestbedError(f"there is no module {module} that could be given to a guest")
        name = module.replace(".", "/")
        name = f"{name}/__init__.py" if path.name == "__init__.py" else f"{name}.py"
        if name in found:
            continue
        found[name] = path
        if "." in module:
            waiting.append(module.rpartition(".")[0])
        waiting += [item for item in _imported(path) if item.partition(".")[0] in PACKAGES]
    return found


def _imported(path: Path) -> Iterator[str]:
    """What a module imports at once. What stands in functions, or is for type checkers, is for others."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            # `from package import module`, but not `from module import function`
            yield from (name for alias in node.names if _source(name := f"{node.module}.{alias.name}") is not None)


def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
