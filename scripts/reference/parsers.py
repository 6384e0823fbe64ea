"""The parsers of the project's commands, got from their main() functions, and their content as plain values.

argparse writes help in another way in each version of Python, and as wide as the terminal is. Here only what the
commands say of themselves is read; `commands` writes the page.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

VARIABLES = ("SERVAL_CONTROL", "SERVICECTL_SOCKET", "CONTROLLER")
"""Of the environment, which some defaults are taken from."""


class _Found(BaseException):
    """Carries the parser out of main()."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@dataclass(frozen=True)
class Argument:
    """One argument: how it is written, what it means."""

    written: str
    meaning: str
    option: bool
    required: bool
    names: tuple[str, ...] = ()
    takes_value: bool = False


@dataclass(frozen=True)
class Described:
    """One command or subcommand. `short` is its line in the list of its parent."""

    name: str
    short: str
    text: str
    epilog: str
    arguments: tuple[Argument, ...]
    commands: tuple[Described, ...] = field(default=())

    @property
    def usage(self) -> str:
        words = [item.written if item.required else f"[{item.written}]" for item in self.arguments]
        return " ".join([self.name, *words, *(["COMMAND ..."] if self.commands else [])])

    def walk(self) -> Iterator[Described]:
        """Itself and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def parser_of(main: Callable[..., Any], *arguments: Any) -> argparse.ArgumentParser:
    """The parser with which a main() reads its arguments; nothing else of it is run. Raises LookupError: none does."""

    def found(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> argparse.Namespace:
        raise _Found(parser)

    with _neutral(), mock.patch.object(argparse.ArgumentParser, "parse_args", found):
        try:
            main(*arguments)
        except _Found as result:
            return result.parser
    raise LookupError(f"{main.__module__}.{main.__qualname__} parses no arguments")


@contextmanager
def _neutral() -> Iterator[None]:
    """Without the variables that change defaults."""
    kept = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def describe(parser: argparse.ArgumentParser, name: str | None = None, short: str = "") -> Described:
    """What a parser says of itself and its subcommands; a subcommand without help is nobody's to call."""
    name = name or parser.prog
    arguments: list[Argument] = []
    commands: list[Described] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            # The positionals before a subcommand stand before it in its name.
            before = "".join(f" {item.written}" for item in arguments if not item.option)
            commands += [describe(action.choices[word], f"{name}{before} {word}", text) for word, text in texts.items()]
        elif not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            arguments.append(_argument(parser, action))
    options = sorted(arguments, key=lambda item: not item.option)
    return Described(name, short, parser.description or "", parser.epilog or "", tuple(options), tuple(commands))


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    option = bool(action.option_strings)
    value = _value(action, option)
    named = ", ".join(action.option_strings)
    written = f"{named} {value}".strip() if option else value
    if option:
        required = action.required
    elif action.nargs == argparse.REMAINDER:
        # argparse takes nothing for such an argument as well; its help says whether the command does.
        required = value.startswith("--") and "default" not in (action.help or "")
    else:
        required = action.nargs not in ("?", "*")
    return Argument(written, _meaning(parser, action), option, required, tuple(action.option_strings), bool(value))


def _value(action: argparse.Action, option: bool) -> str:
    """How the value is written: its metavar or choices, with what may be repeated or left out."""
    if option and action.nargs == 0:
        return ""
    name = action.metavar if isinstance(action.metavar, str) else None
    if name is None:
        choices: Sequence[Any] | None = list(action.choices) if action.choices else None
        name = "{" + ",".join(map(str, choices)) + "}" if choices else action.dest.upper()
    if action.nargs == "+":
        return f"{name} ..."
    if action.nargs == "*":
        return f"{name} ..."
    return f"[{name}]" if option and action.nargs == "?" else name


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = action.help or ""
    values = {**vars(action), "prog": parser.prog}
    meaning = text % values if "%" in text else text
    shown = action.default not in (None, False, "", argparse.SUPPRESS) and not isinstance(action.default, list)
    if shown and "default" not in meaning and str(action.default) not in meaning:
        meaning += f" (default {action.default})"
    if isinstance(action, argparse._AppendAction) and "repeat" not in meaning:
        meaning += " (repeatable)"
    return meaning.strip()
