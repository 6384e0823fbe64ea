"""Every command of README.md and docs/ does what its page says: run as a reader would, beside one running network."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.elsewhere import ELSEWHERE, elsewhere
from tests.docs.pages import ROOT, Command, difference
from tests.docs.reader import RUN_COMMAND, CommandFailed, Reader, other_run, remove_results, shell, tree

PAGES = [page.relative_to(ROOT).as_posix() for page in pages.pages()]


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    try:
        yield reader
        assert reader.exit() == 0, f"the run ended badly: {reader.output}"
    finally:
        reader.close()


def commands(page: str) -> list[Command]:
    return pages.commands(ROOT / page)


def network_of(found: list[Command]) -> str:
    """The command of the network whose prompt a page is about: the first that it starts without options."""
    return next((command.bare for command in found if re.fullmatch(r"make topo-[\w-]+", command.bare)), RUN_COMMAND)


def problem(reader: Reader, command: Command) -> str | None:
    """Run one command; what is wrong with it, None when nothing."""
    if elsewhere(command.bare) or command.bare == reader.command:
        return None
    try:
        if command.at_prompt:
            status, seen = reader.run(command)
        elif command.text.startswith("make topo-"):
            status, seen = other_run(command.text)
        else:
            status, seen = shell(command.text)
    except CommandFailed as failure:
        return str(failure)
    if status != command.status:
        return f"status {status} and not {command.status}; it showed:\n{seen}"
    wrong = difference(command.shown, seen)
    return None if wrong is None else f"{wrong}; all of it:\n{seen}"


def problems(reader: Reader, found: list[Command]) -> list[str]:
    """What is wrong with a page's commands."""
    wrong = [f"{command.where}: {command.text}\n  {said}" for command in found if (said := problem(reader, command))]
    remove_results()
    return wrong


@pytest.mark.deadline(180)
@pytest.mark.parametrize("page", PAGES)
def test_commands_of(page: str, request: pytest.FixtureRequest) -> None:
    """A command that neither runs nor stands in tests/docs/elsewhere.py fails here."""
    found = commands(page)
    if not any(elsewhere(command.bare) is None for command in found):
        return
    before = tree()
    if network_of(found) == RUN_COMMAND:
        reader: Reader = request.getfixturevalue("reader")
        wrong = problems(reader, found)
        reader.reset()
    else:
        with contextlib.closing(Reader(network_of(found))) as reader:
            wrong = problems(reader, found)
            assert reader.exit() == 0, f"the run ended badly: {reader.output}"
    left = sorted(tree() - before)
    if left:
        wrong.append(f"{page}: leaves in the tree: {', '.join(left)}; a page's commands write below /tmp or results/")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "shown", "wrong"),
    [
        ("ann true", [], None),
        ("ann false", [], "status 1 and not 0"),
        ("ann true  # status 1", [], "status 0 and not 1"),
        ("ann serval connect nobody.example", [], "status 1 and not 0"),
        ("servicectl rules nobody", [], "status 1 and not 0"),
        ("kill web.example ann", [], "status 1 and not 0"),
        ("anne true", [], "status 1 and not 0"),
        ("ann echo one", ["two"], "the page shows 'two'"),
        ("ann echo web.example 1", ["web.example 2"], None),
    ],
)
def test_what_goes_wrong_at_the_prompt_is_seen(reader: Reader, text: str, shown: list[str], wrong: str | None) -> None:
    said = problem(reader, Command("page", 1, text, True, shown))
    assert said is None if wrong is None else wrong in str(said)
    reader.forget()


def test_what_goes_wrong_in_a_shell_is_seen(reader: Reader) -> None:
    assert problem(reader, Command("page", 1, "true", False)) is None
    assert "status 1 and not 0" in str(problem(reader, Command("page", 1, "false", False)))


def test_the_table_of_exceptions_is_current() -> None:
    every = [command.bare for page in PAGES for command in commands(page)]
    for item in ELSEWHERE:
        assert any(elsewhere(command) is item for command in every), f"no page has such a command: {item.pattern}"
        if item.test is not None:
            file, _, name = item.test.partition("::")
            assert f"def {name}" in Path(ROOT / file).read_text(), item.test
