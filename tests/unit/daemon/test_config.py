"""Configuration: read back what was written, refuse what is not understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serval_node.daemon.config import ConfigError, ControllerAddress, NodeConfig
from serval_node.sal.delay_queue import DelayLimits


def test_round_trip() -> None:
    config = NodeConfig(
        name="cleo",
        node_id=3,
        role="router",
        providers={"example": 0x123456},
        serves=("example",),
        controller=ControllerAddress("127.0.0.1", 6653),
        run_dir="/run/testbed/hosts/cleo",
        hosts={"ann": "10.0.1.1"},
        rules=({"prefix": "0x12/8"},),
        mtu=1500,
        resolution_mode="all",
        delay={"total": 10, "seconds": 2.5},
    )
    assert NodeConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.forwarding
    assert config.delay_limits == DelayLimits(total=10, seconds=2.5)
    assert not NodeConfig(name="ann").forwarding


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "JSON object"),
        ({}, "lacks 'name'"),
        ({"name": "ann", "roll": "host"}, "unknown key 'roll'.*known keys: name, node_id, role"),
        ({"name": "../ann"}, "'name'"),
        ({"name": "ann", "role": "switch"}, "one of host, router"),
        ({"name": "ann", "node_id": 0}, "'node_id'"),
        ({"name": "ann", "node_id": True}, "'node_id'"),
        ({"name": "ann", "providers": {"example": 1 << 24}}, "providers.example"),
        ({"name": "ann", "hosts": {"ben": "10.0.1"}}, "ben"),
        ({"name": "ann", "controller": {"host": "127.0.0.1"}}, "'controller'"),
        ({"name": "ann", "controller": {"host": "127.0.0.1", "port": 0}}, "controller.port"),
        ({"name": "ann", "rules": ["x"]}, "'rules'"),
        ({"name": "ann", "offload": 1}, "true or false"),
        ({"name": "ann", "resolution_mode": "some"}, "one of all, demux-only, forward-only, anycast"),
        ({"name": "ann", "delay": {"totl": 5}}, "some of total, per_service, per_source, seconds"),
        ({"name": "ann", "delay": {"total": 0}}, "delay.total"),
        ({"name": "ann", "delay": {"seconds": 0}}, "delay.seconds"),
    ],
)
def test_refusals_name_the_key(data: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NodeConfig.from_json(data)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        NodeConfig.load(str(tmp_path / "missing.json"))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.json"):
        NodeConfig.load(str(broken))
