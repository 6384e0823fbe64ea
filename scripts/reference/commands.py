"""docs/commands.md: every command, option, make target and prompt command, from what the code says of them."""

from __future__ import annotations

import functools
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import topologies
from controllers import ctl
from experiments import __main__ as experiments
from experiments.benchmarks import command as benchmarks
from scripts.reference.parsers import Described, describe, parser_of
from serval_node.capture import __main__ as capture
from serval_node.cli import __main__ as serval
from serval_node.daemon import servald
from testbed import cli as testbed_cli
from testbed import launch
from testbed.experiment import __main__ as results
from testbed.prompt import HELP, Prompt

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "commands.md"

COMMANDS: tuple[tuple[str, str, Callable[..., Any], tuple[Any, ...]], ...] = (
    ("testbed", "In a shell, as `.venv/bin/testbed`.", testbed_cli.main, ([],)),
    *(
        (f"testbed run {name}", f'What `make topo-{name} ARGS="..."` takes.', launch.run, (name, []))
        for name in topologies.TOPOLOGIES
    ),
    ("serval", "At the prompt, after a host's name.", serval.main, ([],)),
    ("servicectl", "At the prompt, with or without a host's name.", ctl.main, ([],)),
    ("python -m serval_node.capture", "In a shell, as `.venv/bin/python -m ...`.", capture.main, ([],)),
    ("python -m experiments.benchmarks", 'What `make bench ARGS="..."` takes.', benchmarks.main, ([],)),
    ("python -m experiments", 'What `make experiments ARGS="..."` takes.', experiments.main, ([],)),
    (
        "python -m testbed.experiment",
        "In a shell, as `.venv/bin/python -m ...`, with a result ([experiments.md](experiments.md)).",
        results.main,
        ([],),
    ),
    ("servald", "Started by the testbed; by hand in a namespace of its own ([node.md](node.md)).", servald.main, ([],)),
)

_HEAD = """\
# Commands

Everything that can be typed. `--help` behind any command or subcommand shows the same. This page is written by
`make reference` from the code.

What ends well ends with status 0; what fails with 1 and one line on standard error that says why and, where something
can be done about it, what; a wrong use with 2; Ctrl-C with 130.
"""


_CHILD = """
import pickle, sys
from controllers import run
from scripts.reference.parsers import describe, parser_of
sys.stdout.buffer.write(pickle.dumps(describe(parser_of(run.main, []))))
"""


@functools.cache
def described() -> tuple[tuple[str, Described], ...]:
    """Where it is typed, and the command."""
    found = [(where, describe(parser_of(main, *words), name)) for name, where, main, words in COMMANDS]
    # In a process of its own: the controllers' framework puts other sockets in the place of Python's.
    child = subprocess.run([sys.executable, "-c", _CHILD], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return (*found, ("Started by the testbed ([controller.md](controller.md)).", pickle.loads(child.stdout)))


def make_targets() -> dict[str, str]:
    """Target -> what `make` says of it."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    return {
        found[1].replace("%", "NAME"): found[2] for line in lines if (found := re.match(r"([a-z%-]+):.*?## (.*)", line))
    }


def prompt_commands() -> dict[str, str]:
    """Usage -> meaning of the prompt's own commands; Mininet's are Mininet's."""
    found = {}
    ours = [kind for kind in reversed(Prompt.__mro__) if kind.__module__.startswith("testbed.")]
    for name, function in {name: item for kind in ours for name, item in vars(kind).items()}.items():
        if name.startswith("do_"):
            text = inspect.getdoc(function) or ""
            usage, colon, meaning = text.partition(": ")
            command = name.removeprefix("do_")
            if colon and usage.split()[0] == command:
                found[usage] = meaning
            else:
                found[command] = text
    return found


def page() -> str:
    """The text of docs/commands.md."""
    parts = [_HEAD, "## `make`\n", _table("target", {f"make {name}": text for name, text in make_targets().items()})]
    parts += ['`ARGS="..."` and `PYTEST_ARGS="..."` are handed on. `CONTROLLER=ryu` chooses original Ryu.\n']
    parts += [
        "## The prompt\n",
        "A line is one of Mininet's own commands (`help` lists them), one of these, or a host's name and a command that"
        " runs in it.\n",
        _table("command", prompt_commands()),
        "`help` ends with:\n",
        f"```text\n{HELP.strip()}\n```\n",
    ]
    for where, command in described():
        parts += _section(command, 2, where)
    return "\n".join(parts).rstrip() + "\n"


def _section(command: Described, level: int, where: str = "") -> Iterator[str]:
    yield f"{'#' * level} `{command.name}`\n"
    if where:
        yield where + "\n"
    yield f"```text\n{command.usage}\n```\n"
    if text := _paragraphs(command.text or command.short):
        yield text
    if command.arguments:
        yield _table("argument", {item.written: item.meaning for item in command.arguments})
    if command.commands:
        yield _table("command", {item.name: item.short for item in command.commands})
    if command.epilog:
        yield f"```text\n{command.epilog.strip()}\n```\n" if "\n" in command.epilog else command.epilog + "\n"
    written: dict[str, str] = {}
    for item in command.commands:
        # One that has nothing but its line in the table needs no section.
        if item.arguments or item.commands or item.text:
            text = "\n".join(_section(item, min(level + 1, 4)))
            same = text.replace(item.name, "").replace(item.short, "")
            first = written.setdefault(same.lower(), item.name)
            yield text if first == item.name else f"`{item.name}` takes what `{first}` takes.\n"


def _paragraphs(text: str) -> str:
    joined = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n".join(f"{_sentence(part)}\n" for part in joined if part)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ":")) else text + "."


def _table(head: str, rows: dict[str, str]) -> str:
    lines = [f"| {head} | |", "|---|---|"]
    lines += [f"| `{_cell(name)}` | {_cell(' '.join(text.split()))} |" for name, text in rows.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
