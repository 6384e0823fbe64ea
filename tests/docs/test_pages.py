"""Every command of README.md and docs/ does what its page says: run as a reader would, beside one running network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.elsewhere import ELSEWHERE, elsewhere
from tests.docs.pages import ROOT, Command, difference
from tests.docs.reader import RUN_COMMAND, CommandFailed, Reader, other_run, shell, tree

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


def problem(reader: Reader, command: Command) -> str | None:
    """Run one command; what is wrong with it, None when nothing."""
    if elsewhere(command.bare) or command.bare == RUN_COMMAND:
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


@pytest.mark.deadline(180)
@pytest.mark.parametrize("page", PAGES)
def test_commands_of(page: str, request: pytest.FixtureRequest) -> None:
    """A command that neither runs nor stands in tests/docs/elsewhere.py fails here."""
    found = commands(page)
    if not any(elsewhere(command.bare) is None for command in found):
        return
    reader: Reader = request.getfixturevalue("reader")
    before = tree()
    wrong = [f"{command.where}: {command.text}\n  {said}" for command in found if (said := problem(reader, command))]
    reader.reset()
    left = sorted(tree() - before)
    if left:
        wrong.append(f"{page}: leaves in the tree: {', '.join(left)}; a page's commands write below /tmp or results/")
    assert not wrong, "\n\n".join(wrong)


def test_the_table_of_exceptions_is_current() -> None:
    every = [command.bare for page in PAGES for command in commands(page)]
    for item in ELSEWHERE:
        assert any(elsewhere(command) is item for command in every), f"no page has such a command: {item.pattern}"
        if item.test is not None:
            file, _, name = item.test.partition("::")
            assert f"def {name}" in Path(ROOT / file).read_text(), item.test
