"""The command line of servicectl: wrong words are answered by the usage of the command that they belong to."""

from __future__ import annotations

import pytest

from controllers import ctl


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
