"""docs/ keeps the rules of docs/writing.md, as far as that can be seen without a network (tests/docs has the rest)."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.reference import commands
from scripts.reference.parsers import Described
from tests.docs import pages
from tests.docs.elsewhere import elsewhere
from tests.docs.pages import ROOT, Command, PageError, difference, in_text

PAGES = [path.relative_to(ROOT).as_posix() for path in pages.pages()]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
OURS = ("serval_node", "controllers", "topologies", "testbed", "experiments")
OF_OTHERS = (os.strerror(errno.EADDRINUSE),)
"""Messages of the README's table that programs of others print."""
FILE = re.compile(rf"(?:{'|'.join(OURS)}|tests|docs|scripts)/[\w./-]+")
SHELLS = ("sh", "bash", "shell", "console", "shell-session")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|\.\.\.|\|")


def texts() -> Iterator[tuple[str, str]]:
    return ((page, (ROOT / page).read_text(encoding="utf-8")) for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_hold_commands_or_are_fenced(page: str) -> None:
    pages.commands(ROOT / page)
    for block in pages.blocks((ROOT / page).read_text(encoding="utf-8")):
        assert block.language != "", f"{page}:{block.line}: say which language stands between the fences; or `text`"
        assert block.language not in SHELLS, f"{page}:{block.line}: commands are indented and not fenced, and are run"


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_its_imports_exist(page: str) -> None:
    for block in pages.blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.language == "python":
            tree = ast.parse("\n".join(block.lines), f"{page}:{block.line}")
            for module, name in _imports(tree):
                assert _exists(module, name), f"{page}:{block.line}: {module} has no {name}"


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in OURS)


def _exists(module: str, name: str) -> bool:
    """Whether a module is there and has or mentions a name; modules are found, and only packages imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not name:
        return spec is not None
    if spec.submodule_search_locations is not None and importlib.util.find_spec(f"{module}.{name}"):
        return True
    source = Path(spec.origin).read_text(encoding="utf-8") if spec.origin else ""
    return re.search(rf"\b{name}\b", source) is not None


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, _ in LINK.findall(text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    named = INLINE.findall((ROOT / page).read_text(encoding="utf-8"))
    for name in named:
        if FILE.fullmatch(name):
            assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists(), f"{page}: {name}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {target for target, _ in LINK.findall(index)}
    lost = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} - {"README.md"} - linked
    assert not lost, f"give each a line in docs/README.md, in reading order: {', '.join(sorted(lost))}"


# -- commands inside sentences


def inline_commands() -> list[tuple[str, str]]:
    return [
        (page, text)
        for page, content in texts()
        for text in dict.fromkeys(INLINE.findall(_without_code(content)))
        if text.split()[:1] and (text.split()[0] in ("make", "serval", "servicectl", "servald", "testbed"))
    ]


def _without_code(content: str) -> str:
    lines = content.splitlines()
    for block in pages.blocks(content):
        for number in range(block.line - 1, block.line - 1 + len(block.lines)):
            lines[number] = ""
    return "\n".join(lines)


def wrong_words(words: list[str], known: Described) -> str | None:
    """The first word that a command does not know: a subcommand, or an option of the deepest one."""
    for position, word in enumerate(words):
        if word == "--":
            return None
        if word.startswith("--"):
            options = {name for item in known.arguments for name in item.names} | {"--help"}
            if word.partition("=")[0] not in options:
                return word
        elif known.commands:
            found = next((item for item in known.commands if item.name.rpartition(" ")[2] == word), None)
            if found is not None:
                known = found
            elif not _positional(known, words[:position]):
                return word
    return None


def _positional(known: Described, before: list[str]) -> bool:
    """Whether a command takes words of its own before its subcommand (`servicectl add NODE SERVICE drop`), or a value
    of an option comes now.
    """
    takes = any(not item.option for item in known.arguments)
    values = [item for item in known.arguments if item.takes_value and before and before[-1] in item.names]
    return takes or bool(values)


@pytest.mark.parametrize(("page", "text"), inline_commands())
def test_a_command_in_a_sentence_exists(page: str, text: str) -> None:
    words = shlex.split(text)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and not PLACEHOLDER.search(word)]
        assert set(targets) <= commands.make_targets().keys(), f"{page}: {text}"
        return
    roots = {command.name: command for _, command in commands.described()}
    name = " ".join(words[:3]) if " ".join(words[:3]) in roots else words[0]
    rest = [word for word in words[len(name.split()) :] if not PLACEHOLDER.search(word)]
    assert wrong_words(rest, roots[name]) is None, f"{page}: {text}: {wrong_words(rest, roots[name])}"


def test_a_wrong_word_is_found() -> None:
    roots = {command.name: command for _, command in commands.described()}
    assert wrong_words(["tabel"], roots["serval"]) == "tabel"
    assert wrong_words(["table", "--jsno"], roots["serval"]) == "--jsno"
    assert wrong_words(["add", "cleo", "web.example", "forwad", "dan", "--selecto"], roots["servicectl"]) == "--selecto"
    assert wrong_words(["add", "cleo", "web.example", "forward", "dan", "--selector"], roots["servicectl"]) is None
    assert wrong_words(["run", "--service", "web.example", "--", "ls", "--all"], roots["serval"]) is None


# -- the convention itself


def found(text: str) -> list[tuple[int, str, bool, list[str]]]:
    return [(item.line, item.text, item.at_prompt, item.shown) for item in in_text(text, "page")]


def test_commands_are_found_with_their_output() -> None:
    text = (
        "Text\n\n    make setup   # once\n    ls \\\n      -l\n\n* a list\n\n    goes on\n\ntext\n\n"
        "    mininet> ann true\n    one\n    $ ls\n    ...\n\n```text\n    not this\n```\n"
    )
    assert found(text) == [
        (3, "make setup   # once", False, []),
        (4, "ls \\\n  -l", False, []),
        (13, "ann true", True, ["one"]),
        (15, "ls", False, ["..."]),
    ]


def test_a_here_document_is_one_command() -> None:
    assert [item[1] for item in found("\n    cat <<'END'\n    make setup\n    END\n    ls\n")] == [
        "cat <<'END'\nmake setup\nEND",
        "ls",
    ]


@pytest.mark.parametrize(
    "text", ["\n    0.000 > 10.77.0.2 SAL\n", "\n    output\n    $ ls\n", "\n    $ no-such-tool\n"]
)
def test_what_is_no_command_is_an_error(text: str) -> None:
    with pytest.raises(PageError, match=r"page:2: .*docs/writing\.md"):
        found(text)


def test_the_status_of_a_command_is_read() -> None:
    assert [Command("page", 1, text, True).status for text in ("x", "x # says no: status 3", "x status 3")] == [0, 3, 0]
    assert Command("page", 1, "kill web.example dan    # and `start`", True).bare == "kill web.example dan"


def test_differences_are_found() -> None:
    seen = "service  web.example\n0x5e7a1e 10.2.1.1 dan\n\nlast\n"
    assert difference([], seen) is None
    assert difference(["default via 10.2.0.254"], "default via \x1b[35m10.2.0.254\x1b[0m\n") is None, "colours"
    assert difference(["service web.example", "0xffff 10.2.2.1  eve", "last"], seen) is None
    assert difference(["...", "last"], seen) is None
    assert difference(["service web.example", "..."], seen) is None
    assert "goes on" in str(difference(["service web.example"], seen))
    assert "'other'" in str(difference(["service web.example", "other", "..."], seen))
    assert "'other'" in str(difference(["...", "other"], seen))


def test_the_table_of_exceptions_does_not_take_everything() -> None:
    assert elsewhere("make setup") is not None
    assert elsewhere("make topo-datacenter") is None
    assert elsewhere("ls") is None


def test_troubleshooting_speaks_the_programs_words() -> None:
    """Each message of the README's table is in the code, but for what `...` stands for."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## When something goes wrong")[2]
    rows = [row.split("|")[1] for row in text.partition("\n## ")[0].splitlines() if row.startswith("| `")]
    files = [path for room in (*OURS, "scripts") for path in (ROOT / room).rglob("*") if path.is_file()]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix in ("", ".py"))
    messages = [message for row in rows for message in INLINE.findall(row)]
    assert messages
    for message in messages:
        said = re.sub(r"^(setup|testbed|serval|WARNING): |^\*\*\* ", "", message)
        for part in filter(None, (part.strip() for part in said.split("..."))):
            assert part in source or part in OF_OTHERS, f"README.md: no program says {part!r}"
