"""The command line of servicectl: wrong words are answered by the usage of the command that they belong to."""

from __future__ import annotations

import pytest

from controllers import ctl
from serval_node.control.enquiries import FlowStat


@pytest.mark.parametrize(
    ("line", "usage", "said"),
    [
        (
            "add cleo web.example forward 10.2.1.1 --weight 5",
            "servicectl add NODE SERVICE forward",
            "unrecognized arguments: --weight 5",
        ),
        ("change cleo web.example drop now", "servicectl change NODE SERVICE drop", "unrecognized arguments: now"),
        ("rules cleo dan eve", "servicectl rules", "unrecognized arguments: eve"),
        ("nodes --tall", "servicectl nodes", "unrecognized arguments: --tall"),
        ("policy web.example hash dan=many", "servicectl policy", "error: 'dan=many' is not NODE=WEIGHT"),
    ],
)
def test_wrong_words_are_answered_by_the_commands_own_usage(
    line: str, usage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ctl.main(line.split())
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"usage: {usage} ")
    assert shown.rstrip().endswith(said)


FLOW = FlowStat(7, "web.example", "CONNECTED", False, local="10.1.0.1", peer="10.2.1.1", moving_to="10.1.0.9")


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller whose node has one flow, which is moving."""
    monkeypatch.setattr(ctl.Client, "__init__", lambda self, *_, **__: None)
    monkeypatch.setattr(ctl.Client, "__enter__", lambda self: self)
    monkeypatch.setattr(ctl.Client, "__exit__", lambda self, *_: None)
    monkeypatch.setattr(ctl.Client, "request", lambda self, op, **_: {"ok": True, "flows": [FLOW.to_json()]})


@pytest.mark.usefixtures("answered")
def test_what_is_moved_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["migrate", "ann", "service", "web.example", "10.1.0.9"]) == 0
    assert capsys.readouterr().out == "flow 7 -> web.example moves 10.1.0.1 -> 10.1.0.9\n"


@pytest.mark.usefixtures("answered")
def test_a_flow_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["flows", "ann", "7"]) == 0
    assert "CONNECTED" in capsys.readouterr().out
    assert ctl.main(["flows", "ann", "7", "8"]) == 1
    assert capsys.readouterr().err == "servicectl: ann has no flow 8; `servicectl flows ann` lists them\n"


def test_a_request_has_nothing_of_the_command_line_itself() -> None:
    options = ctl.parser().parse_args(["add", "cleo", "web.example", "forward", "10.2.1.1*5", "--json"])
    request = ctl.request_of(options)
    assert request == {
        "op": "add",
        "node": "cleo",
        "service": "web.example",
        "action": "forward",
        "targets": ["10.2.1.1*5"],
        "selector": "weighted-random",
    }
