"""Topologies and networks of scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mininet.topo import Topo

import topologies
from testbed.errors import TestbedError
from testbed.experiment.schedule import SpecificationError
from testbed.experiment.specification import Scene
from testbed.link.planned import check_links
from topologies.declarations import TopologyError

if TYPE_CHECKING:  # it brings a running Mininet along
    from testbed.network import ServalNetwork


def topology(name: str, options: Mapping[str, Any]) -> Topo:
    """A topology by name, with its links checked; raises SpecificationError."""
    try:
        found = topologies.find(name)(**options)
    except (TopologyError, ValueError, TypeError) as error:
        raise SpecificationError(f"topology {name}: {error}") from None
    try:
        check_links(found)
    except TestbedError as error:
        raise SpecificationError(f"topology {name}: {error.message}", error.hint) from None
    return found


def network(topo: Topo, scene: Scene, logs: Path, seed: int) -> ServalNetwork:
    """A network of a scene's topology, not yet started."""
    from testbed.network import ServalNetwork

    return ServalNetwork(topo, logs=logs, seed=seed, controller_options=scene.controller)
