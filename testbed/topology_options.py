"""A topology's parameters as options on a command line. Pure."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from typing import NoReturn

from testbed.errors import TestbedError, report
from testbed.words import did_you_mean
from topologies.declarations import Declared


def parser(prog: str, kind: type[Declared]) -> Parser:
    """A parser that has the topology's parameters; `prog` is what the user typed before them."""
    # An abbreviation would be taken for whatever it is the beginning of, and a typing error with it.
    made = Parser(prog=prog, description=kind.summary, allow_abbrev=False)
    for name, text in kind.parameters.items():
        made.add_argument(option(name), dest=name, metavar="X", help=text)
    return made


class Parser(argparse.ArgumentParser):
    """Errors in two lines: what is wrong, and where all options are listed."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        known = [option for action in self._actions for option in action.option_strings]
        near = did_you_mean(unknown[0].partition("=")[0], known) if unknown else ""
        report(TestbedError(f"{self.prog.split()[-1]}: {message}{near}", f"all options: {self.prog} --help"))
        raise SystemExit(2)


def joined(arguments: Sequence[str], kind: type[Declared]) -> list[str]:
    """`--delay -5ms` as `--delay=-5ms`: argparse would say that --delay lacks its value, and not what is wrong."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] in map(option, kind.parameters) and re.match(r"-\.?\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def parameters(kind: type[Declared], options: argparse.Namespace) -> dict[str, int | float | str]:
    """The given parameters of a topology, as numbers where the topology wants numbers; raises ValueError."""
    defaults = inspect.signature(kind.build).parameters
    given = {name: value for name in kind.parameters if (value := getattr(options, name)) is not None}
    return {
        name: text if isinstance(defaults[name].default, str) else _number(option(name), text)
        for name, text in given.items()
    }


def _number(option: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass  # perhaps with a fraction
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option}: {text!r} is no number") from None
