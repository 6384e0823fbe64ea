"""The prompt's answers to wrong words: one line, and the prompt goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.prompt import Prompt


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prompt]:
    """A prompt over no network that reads nothing."""
    monkeypatch.setattr(Prompt, "run", lambda self: None)
    with open("/dev/null") as nothing:
        yield Prompt({}, stdin=nothing)


@pytest.mark.parametrize(("file", "reason"), [("missing", "No such file"), ("", "Is a directory")])
def test_source_of_a_file_that_cannot_be_read(
    prompt: Prompt, file: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("testbed.prompt.error", said.append)
    prompt.onecmd(f"source {tmp_path / file}")
    assert len(said) == 1
    assert reason in said[0]


def test_source_runs_the_commands_in_a_file(prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Prompt, "do_services", lambda self, line: seen.append(line))
    (tmp_path / "commands").write_text("services one\nservices two\n")
    prompt.onecmd(f"source {tmp_path / 'commands'}")
    assert seen == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("restart", "one word is wanted: restart HOST"),
        ("link ann s1", "three words are wanted: link NODE NODE up|down"),
        ("link ann s1 away", "'away' is neither up nor down"),
        ("kill dan", "two words are wanted: SERVICE HOST"),
        ("move vic ian", "four words are wanted: move VM HOST ADDRESS GATEWAY"),
        ("plug ann eth0 cell", "five words are wanted: plug HOST INTERFACE BRIDGE ADDRESS GATEWAY"),
        ("plug ann eth0 cell 10.2.0.1/24 10.2.0.254 gap=x", "gap=x is no number of seconds"),
        ("plug ann eth0 cell 10.2.0.1 10.2.0.254", "needs the length of a prefix"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    prompt: Prompt, line: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("testbed.prompt.error", said.append)
    prompt.onecmd(line)
    assert complaint in said[0]
