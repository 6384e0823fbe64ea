"""The nft rival: the text of its rules, and what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from testbed.errors import TestbedError
from testbed.rivals import nft_balancer
from testbed.rivals.nft_balancer import CHOICES, ruleset

SERVERS = ["10.2.1.1", "10.2.1.2", "10.2.1.3"]


@pytest.mark.parametrize(
    ("how", "chooses"),
    [
        ("random", "numgen random mod 3"),
        ("round-robin", "numgen inc mod 3"),
        ("flow-hash", "jhash ip saddr . tcp sport mod 3 seed 0x5e7a1e"),
        ("client-hash", "jhash ip saddr mod 3 seed 0x5e7a1e"),
    ],
)
def test_each_server_has_a_place_and_the_choice_is_nfts(how: str, chooses: str) -> None:
    lines = [line.strip() for line in ruleset(how, "10.2.0.2", 80, SERVERS).splitlines()]
    places = "map { 0 : 10.2.1.1, 1 : 10.2.1.2, 2 : 10.2.1.3 }"
    assert f"ip daddr 10.2.0.2 tcp dport 80 counter dnat to {chooses} {places}" in lines
    assert "ct original ip daddr 10.2.0.2 tcp dport 80 counter masquerade" in lines, "answers come back here"
    assert lines[:2] == ["table ip serval_rival", "delete table ip serval_rival"], "one in the place of the other"
    assert set(CHOICES) == {"random", "round-robin", "flow-hash", "client-hash"}


@pytest.mark.parametrize(
    ("how", "servers", "says"),
    [("best", SERVERS, "no 'best'"), ("random", [], "not none"), ("random", ["10.2.1.1"] * 2, "each once")],
)
def test_what_makes_no_sense_is_refused(how: str, servers: list[str], says: str) -> None:
    with pytest.raises(TestbedError, match=says):
        ruleset(how, "10.2.0.2", 80, servers)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What nft says when it is tried."""
    answer: dict[str, object] = {"returncode": 0, "stderr": ""}

    def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert words[0] == "unshare" and words[-2:] == ["-f", "-"]
        return subprocess.CompletedProcess(words, int(str(answer["returncode"])), "", str(answer["stderr"]))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(nft_balancer, "_program", lambda: "/usr/sbin/nft")
    nft_balancer.missing.cache_clear()
    return answer


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    nft_balancer.missing.cache_clear()


def test_what_is_missing_is_said(asked: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert nft_balancer.missing() is None
    nft_balancer.missing.cache_clear()
    asked.update(returncode=1, stderr="Error: Could not process rule: No such file or directory\nmore\n")
    assert nft_balancer.missing() == (
        "kernel without nf_tables, or without its NAT: Error: Could not process rule: No such file or directory"
    )
    nft_balancer.missing.cache_clear()
    monkeypatch.setattr(nft_balancer, "_program", lambda: None)
    assert "apt-get install nftables" in str(nft_balancer.missing())
