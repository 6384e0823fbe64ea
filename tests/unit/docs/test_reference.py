"""The pages of docs/ that are made from the code are what the code says now, in any terminal and environment."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from scripts.reference import __main__ as reference
from scripts.reference import api, commands
from scripts.reference.parsers import describe, parser_of


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_the_page_is_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == reference.PAGES[page](), "run: make reference"


def test_terminal_and_environment_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = commands.page()
    commands.described.cache_clear()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("SERVAL_CONTROL", "/elsewhere")
    monkeypatch.setenv("SERVICECTL_SOCKET", "/elsewhere")
    assert commands.page() == before


def test_every_argument_has_a_help_text() -> None:
    silent = [
        f"{command.name} {item.written}"
        for _, root in commands.described()
        for command in root.walk()
        for item in command.arguments
        if not item.meaning
    ]
    assert silent == []


def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="try", description="tries")
    parser.add_argument("--rate", type=int, default=3, metavar="N", help="how fast")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    words = parser.add_subparsers(required=True)
    once = words.add_parser("once", help="one time")
    once.add_argument("names", nargs="+", metavar="NAME", help="of whom")
    once.add_argument("rest", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to do")
    words.add_parser("inner")
    parser.parse_args(arguments)
    raise AssertionError("the command has run")


def test_a_parser_is_described_without_running_the_command() -> None:
    described = describe(parser_of(_main, []))
    assert described.usage == "try [--rate N] COMMAND ..."
    assert [(item.written, item.meaning) for item in described.arguments] == [("--rate N", "how fast (default 3)")]
    (once,) = described.commands
    assert once.usage == "try once NAME ... -- COMMAND"
    with pytest.raises(LookupError, match="parses no arguments"):
        parser_of(lambda: None)


def test_an_unknown_name_or_a_missing_docstring_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FACES", (api.Face("topologies.declarations", "Links", ("Nothing",)),))
    with pytest.raises(LookupError, match=r"topologies\.declarations has no Nothing"):
        api.page()
    monkeypatch.setattr(api, "FACES", (api.Face("topologies.declarations", "Links", ("annotations",)),))
    with pytest.raises(LookupError, match="annotations of its own"):
        api.page()


def test_a_docstring_becomes_markdown() -> None:
    text = "Does it.\n\nname   what\n       it is\nother, more  that\n\n    one\n\n      two\n\nThe end:\n  x"
    assert api.markdown(text) == (
        "Does it.\n\n* `name`: what\n  it is\n* `other, more`: that\n\n```text\none\n\n  two\n```\n\nThe end:\n\n"
        "```text\nx\n```"
    )
