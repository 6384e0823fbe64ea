"""What a topology says of a node reaches the node, which checks it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serval_node.daemon.config import ConfigError, NodeConfig
from testbed.hosts import ServalHost
from testbed.nodes import configurations


def told(**options: Any) -> dict[str, Any]:
    """What the node of ann is told at its start."""
    host = SimpleNamespace(name="ann", options={"role": "host", **options}, run_directory=Path("/run/x"))
    return configurations([cast(ServalHost, host)], {"ann": "10.1.0.1"}, {"example": 7}, ("127.0.0.1", 6653))["ann"]


def test_every_option_of_a_node_can_stand_in_a_topology() -> None:
    options = {
        "adhoc": True,
        "encapsulated_peers": {"10.0.0.0/8": "udp"},
        "keepalive": 1.0,
        "migrate_congestion": "reset",
        "resolution_mode": "all",
    }
    config = NodeConfig.from_json(told(**options))
    assert (config.keepalive, config.adhoc, config.migrate_congestion) == (1.0, True, "reset")
    assert config.encapsulated_peers == options["encapsulated_peers"]


def test_what_the_testbed_knows_better_stays() -> None:
    assert (told(name="eve")["name"], told(hosts={})["hosts"]) == ("ann", {"ann": "10.1.0.1"})


def test_a_mistyped_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'keepalife'"):
        NodeConfig.from_json(told(keepalife=1.0))
