"""Policies: what rule each makes of its instances, those of users, and what becomes of one that fails."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.directory import Instance
from controllers.policies import POLICIES, Candidate, Policy, PolicyBook, PolicyError, Setting, register
from controllers.policies.base import IN_USE, STANDBY
from serval_node.control.rules import SELECTORS, RuleSpec
from serval_node.wire.naming import Naming

WEB = Naming({"example": 0x9C1185}).bind_prefix("web.example")
ROOT = Path(__file__).resolve().parents[3]
NODES = ("dan", "eve", "fay", "gus")
FOUR = [Instance(name, f"10.2.1.{number}") for number, name in enumerate(NODES, 1)]

PACKED = """
from controllers.policies import Policy

class Packed(Policy):
    '''The first instance alone.'''
    uses_loads = True

    def targets(self, candidates):
        return [c.target() if c is candidates[0] else c.standby() for c in candidates]
"""


def rule(name: str, loads: dict[str, float] | None = None, weights: dict[str, int] | None = None) -> RuleSpec:
    """Loads by node."""
    figures = {item.address: (loads or {}).get(item.node, 0.0) for item in FOUR}
    return Setting(name, weights).rule(WEB, FOUR, figures)


def in_use(found: RuleSpec) -> dict[str, int]:
    """Node -> weight of the targets that the router chooses among."""
    top = max(target.priority for target in found.targets)
    names = {item.address: item.node for item in FOUR}
    return {names[target.address or ""]: target.weight for target in found.targets if target.priority == top}


def test_every_selector_has_a_policy_of_its_name_and_the_rest_say_which() -> None:
    assert set(SELECTORS) < set(POLICIES)
    for name in SELECTORS:
        found = rule(name)
        assert (found.selector, found.policy) == (name, ""), "as before there were others"
    assert (rule("random").selector, rule("random").policy) == ("weighted-random", "random")
    assert (rule("least-loaded").selector, rule("least-loaded").policy) == ("round-robin", "least-loaded")


@pytest.mark.statement("S24")
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_keeps_every_instance_in_its_rule(name: str) -> None:
    """S43: where a repeated SYN looks for the instance that it had."""
    found = rule(name, {"dan": 3, "gus": 1})
    assert set(found.addresses) == {item.address for item in FOUR}
    assert in_use(found)


def test_weights_are_the_operators_or_the_instances_own() -> None:
    assert in_use(rule("weighted-random", weights={"dan": 5})) == {"dan": 5, "eve": 1, "fay": 1, "gus": 1}
    heavy = [Instance("dan", "10.2.1.1", 7), FOUR[1]]
    assert [target.weight for target in Setting("random").rule(WEB, heavy, {}).targets] == [1, 1]
    with pytest.raises(PolicyError, match="no weights"):
        Setting("random", {"dan": 2})


def test_least_loaded_names_the_least_and_lets_the_others_stand_by() -> None:
    found = rule("least-loaded", {"dan": 4, "eve": 2, "fay": 9, "gus": 2})
    assert set(in_use(found)) == {"eve", "gus"}
    assert {target.priority for target in found.targets} == {IN_USE, STANDBY}
    # Twice the flows on twice the weight is the same load.
    assert set(in_use(rule("least-loaded", {"dan": 4, "eve": 2, "fay": 3, "gus": 3}, {"dan": 2}))) == {"dan", "eve"}
    assert len(in_use(rule("least-loaded"))) == 4, "nobody knows better"


@given(loads=st.dictionaries(st.sampled_from(NODES), st.floats(0, 1e9)), name=st.sampled_from(sorted(POLICIES)))
def test_whatever_the_loads_a_rule_can_be_followed(loads: dict[str, float], name: str) -> None:
    found = rule(name, loads)
    assert len(found.targets) == 4 and in_use(found)
    if name == "least-loaded":
        chosen = in_use(found)
        assert max(loads.get(node, 0) for node in chosen) == min(loads.get(node, 0) for node in NODES)


def test_old_names_still_mean_what_they_meant() -> None:
    assert Setting("hash") == Setting("maglev")
    assert rule("hash").selector == "maglev"
    assert RuleSpec(WEB, (), "hash").selector == "maglev"


# -- of users


def test_a_policy_from_a_file_is_used_and_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "packed.py"
    path.write_text(PACKED)
    mine = Setting(str(path))
    assert (mine.name, mine.uses_loads) == ("Packed", True)
    found = mine.rule(WEB, FOUR, {})
    assert (set(in_use(found)), found.policy) == ({"dan"}, str(path))
    path.write_text(PACKED.replace("[0]", "[1]"))
    assert set(in_use(Setting(str(path)).rule(WEB, FOUR, {}))) == {"eve"}


def test_of_several_in_a_file_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(PACKED + "\nclass Turns(Policy):\n    name = 'turns'\n    selector = 'round-robin'\n")
    assert Setting(f"{path}:Turns").rule(WEB, FOUR, {}).selector == "round-robin"
    for text in (str(path), f"{path}:Other"):
        with pytest.raises(PolicyError, match="Packed, Turns"):
            Setting(text)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "there is no file"),
        ("class Mine(:", "cannot be used: SyntaxError"),
        ("import nothing_of_this_name", "cannot be used: ModuleNotFoundError"),
        ("x = 1", "must have one class"),
        (PACKED.replace("uses_loads = True", "selector = 'best'"), "no selector 'best'"),
        (PACKED.replace("uses_loads = True", "def __init__(self): 1 / 0"), "ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, source: str | None, says: str) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(PolicyError, match=says):
        Setting(str(path))


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        ("[c.addres for c in candidates]", "AttributeError"),
        ("[]", "each once"),
        ("[candidates[0].target()] * 2", "each once"),
        ("['10.2.1.1']", "no target"),
        ("[forward('10.9.9.9')]", "each once"),
        ("None", "TypeError"),
        ("[c.target(weight=0) for c in candidates]", "weight"),
    ],
)
def test_a_policy_that_fails_is_told_apart_and_the_service_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gives: str, says: str
) -> None:
    path = tmp_path / "mine.py"
    source = PACKED.split("return")[0] + f"return {gives}\n"
    path.write_text("from serval_node.control.rules import forward\n" + source)
    mine = Setting(str(path))
    with pytest.raises(PolicyError, match=says):
        mine.check([])
    with caplog.at_level(logging.ERROR):
        rules = [mine.rule(WEB, FOUR, {}) for _ in range(3)]
    assert len(in_use(rules[0])) == 4 and rules[0].selector == "weighted-random"
    assert rules[0].policy == str(path), "a corrected file takes over again"
    assert len(caplog.records) == 1 and says in caplog.text


def test_a_policy_of_an_app_is_registered_by_name() -> None:
    @register
    class Nearest(Policy):
        name = "test-nearest"
        selector = "ring"

    try:
        assert rule("test-nearest").selector == "ring"
        with pytest.raises(PolicyError, match="another name"):
            register(type("Other", (Policy,), {"name": "test-nearest"}))
    finally:
        del POLICIES["test-nearest"]


# -- kept


def test_a_found_rule_brings_its_policy_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("least-loaded", "random", "ring"):
        book = PolicyBook()
        book.found(rule(text))
        assert book.policy(WEB).text == text
    book = PolicyBook()
    gone = tmp_path / "gone.py"
    gone.write_text(PACKED)
    found = Setting(str(gone), {"dan": 2}).rule(WEB, FOUR, {})
    gone.unlink()
    with caplog.at_level(logging.ERROR):
        book.found(found)
    assert (book.policy(WEB).text, book.policy(WEB).weights) == ("weighted-random", {"dan": 2})
    assert "gone.py" in caplog.text


def test_a_candidate_can_be_used_stand_by_or_have_another_weight() -> None:
    one = Candidate("dan", "10.2.1.1", 3, 2.5)
    assert (one.target().weight, one.target(weight=9).weight, one.target().priority) == (3, 9, IN_USE)
    assert (one.standby().priority, one.standby().load) == (STANDBY, 2.5)


def test_the_pages_own_policy_packs() -> None:
    """docs/load-balancing.md shows the whole of docs/packed.py."""
    page = (ROOT / "docs" / "load-balancing.md").read_text()
    source = (ROOT / "docs" / "packed.py").read_text()
    assert source.partition('"""\n\n')[2].strip() in page
    packed = Setting(str(ROOT / "docs" / "packed.py"))

    def used(loads: dict[str, float]) -> set[str]:
        figures = {item.address: loads.get(item.node, 0.0) for item in FOUR}
        return set(in_use(packed.rule(WEB, FOUR, figures)))

    assert used({}) == {"dan"} and used({"dan": 1}) == {"dan"}
    assert used({"dan": 2}) == {"eve"} and used({"dan": 2, "eve": 5}) == {"fay"}
    assert used({"dan": 4, "eve": 3, "fay": 9, "gus": 4}) == {"eve"}
