"""`testbed topologies`: what there is to build, with pictures. Builds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import topologies
from testbed import topology_drawing, topology_options, topology_view
from testbed.errors import TestbedError, report
from testbed.link.planned import check_links
from topologies import TopologyError


def main(name: str | None, arguments: Sequence[str]) -> int:
    """List all topologies, or show one with its options; returns the exit status. Raises TestbedError."""
    if name is None:
        print("\n".join(topology_view.listing()))
        return 0
    try:
        kind = topologies.find(name)
        parser = topology_options.parser(f"testbed topologies {name}", kind)
        parser.add_argument("--svg", metavar="FILE", help="draw it into this file")
        options = parser.parse_args(topology_options.joined(arguments, kind))
        topo = kind(**topology_options.parameters(kind, options))
        check_links(topo)
    except (TopologyError, ValueError) as error:
        report(TestbedError(f"{name}: {error}"))
        return 2
    print("\n".join(topology_view.page(name, topo)))
    if options.svg is not None:
        _write(Path(options.svg), topology_drawing.svg(name, topo))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TestbedError(
            f"cannot write {path}: {error.strerror}", "make that possible, or name another file"
        ) from None
    print(f"\ndrawn: {path}")
