"""The commands on the documentation's pages, read from their Markdown.

The convention, which docs/writing.md tells authors: an indented block holds commands and nothing else. A line is one of

    mininet> ann serval table         a command at the prompt of `make topo-datacenter`; output may follow
    $ .venv/bin/testbed list          a shell command in the project's directory; output may follow
    make setup                        a shell command, in a block that shows no output

A command that ends with `\\` goes on in the next line, and one with a here-document up to its end. `# status 1` behind
a command says which status it ends with, if not 0. In output, numbers and the names of instances may differ from what
the reader sees, and a line `...` stands for any lines. Everything else (pictures, programs, files, formats) stands
between fences with the name of its language: ```text.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT, SHELL = "mininet> ", "$ "
INSTANCES = ("dan", "eve", "fay", "gus")

_FENCE = re.compile(r" {0,3}(```+|~~~+)\s*(\S*)")
_LIST_ITEM = re.compile(r"\s*([-*+]|\d+[.)])\s")
_STATUS = re.compile(r"#.*\bstatus (\d+)\b")
_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_PROMPT_COMMENT = re.compile(r"\s+# .*$")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_VARYING = re.compile(rf"0x[0-9a-f]+|\b[0-9a-f]*\d[0-9a-f.:,]*[kMG]?|\b(?:{'|'.join(INSTANCES)})\b")


@dataclass
class Command:
    """One command of a page: the text without its mark, whether it is for the prompt, and the output shown (if any)."""

    page: str
    line: int
    text: str
    at_prompt: bool
    shown: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def status(self) -> int:
        """With which it must end."""
        said = _STATUS.search(self.text)
        return int(said.group(1)) if said else 0

    @property
    def bare(self) -> str:
        """Without a comment: the prompt is no shell everywhere."""
        return _PROMPT_COMMENT.sub("", self.text)


class PageError(Exception):
    """A page that does not keep the convention: where, what, and what to do."""


@dataclass
class Block:
    """An indented block or a fenced one (with its language): its first line's number, and its lines."""

    line: int
    lines: list[str]
    language: str | None = None


def pages(root: Path = ROOT) -> list[Path]:
    """README.md, and all of docs/ in the order of their names."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The code of a page. Inside a list an indented line is text, unless it is indented by four more."""
    lines = text.splitlines()
    number, in_list, blank = 0, False, True
    while number < len(lines):
        line = lines[number]
        if fence := _FENCE.match(line):
            end = next(
                (at for at in range(number + 1, len(lines)) if lines[at].strip().startswith(fence[1])), len(lines)
            )
            yield Block(number + 2, lines[number + 1 : end], fence[2])
            number, blank = end + 1, True
            continue
        if line.startswith("    ") and blank and not in_list:
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            while not lines[end - 1].strip():
                end -= 1
            yield Block(number + 1, [item[4:] for item in lines[number:end]])
            number, blank = end, False
            continue
        if line.strip():
            in_list = bool(_LIST_ITEM.match(line)) or (in_list and (line.startswith(" ") or not blank))
        blank = not line.strip()
        number += 1


def commands(path: Path) -> list[Command]:
    """The commands of a page in their order; raises PageError."""
    return list(in_text(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()))


def in_text(text: str, page: str) -> Iterator[Command]:
    """The commands in the text of a page; raises PageError."""
    for block in blocks(text):
        if block.language is None:
            yield from _in_block(block, page)


def _in_block(block: Block, page: str) -> Iterator[Command]:
    marked = any(line.startswith((PROMPT, SHELL)) for line in block.lines)
    if marked and not block.lines[0].startswith((PROMPT, SHELL)):
        raise PageError(
            f"{page}:{block.line}: a block with `{PROMPT}` or `{SHELL}` must begin with such a line, not with "
            f"{block.lines[0]!r} (docs/writing.md)"
        )
    at = 0
    latest: Command | None = None
    while at < len(block.lines):
        line, number = block.lines[at], block.line + at
        if line.startswith((PROMPT, SHELL)) or (not marked and line.strip() and not line.lstrip().startswith("#")):
            text, at = _whole(block.lines, at)
            if line.startswith((PROMPT, SHELL)):
                text = text.partition(" ")[2]
            if not line.startswith(PROMPT) and not _is_program(text):
                # Never run: a line of output with a `>` in it would write files.
                raise PageError(
                    f"{page}:{number}: {text.splitlines()[0]!r} begins with no program: mark what stands at the prompt"
                    f" with `{PROMPT}`, and fence what is no command (docs/writing.md)"
                )
            latest = Command(page, number, text, line.startswith(PROMPT))
            yield latest
            continue
        if marked and latest is not None:
            latest.shown.append(line.rstrip())
        at += 1


def _is_program(command: str) -> bool:
    words = (word for word in command.split() if not _ASSIGNMENT.match(word))
    first = next(words, "")
    return (
        first in ("cd", "sudo", "wireshark", "tshark")
        or first.startswith((".venv/bin/", ".venv-ryu/bin/"))  # made when they are needed
        or shutil.which(ROOT / first if "/" in first else first) is not None
    )


def _whole(lines: Sequence[str], at: int) -> tuple[str, int]:
    """The command that begins here, with continuation lines and here-documents; and the line behind it."""
    end = at + 1
    while lines[end - 1].endswith("\\") and end < len(lines):
        end += 1
    if here := _HERE_DOCUMENT.search(lines[at]):
        while end < len(lines) and lines[end].strip() != here[2]:
            end += 1
        end += 1
    return "\n".join(lines[at:end]), end


def fixed(line: str) -> str:
    """A line of output without what differs from run to run: numbers, addresses, which instance, widths."""
    return re.sub(r"\s+", " ", _VARYING.sub("_", line)).strip()


def difference(shown: Sequence[str], seen: str) -> str | None:
    """What the output has otherwise than the page shows, in one line; None when nothing."""
    # Newer versions of ip and others colour what they print at a terminal.
    have = [fixed(line) for line in _COLOUR.sub("", seen).splitlines() if line.strip()]
    at, gap = 0, False
    for line in filter(str.strip, shown):
        if line.strip() == "...":
            gap = True
            continue
        wanted = fixed(line)
        last = len(have) if gap else min(at + 1, len(have))
        found = next((number for number in range(at, last) if have[number] == wanted), None)
        if found is None:
            return f"the page shows {line.strip()!r}" + ("" if gap or at == len(have) else f", the output {have[at]!r}")
        at, gap = found + 1, False
    if at < len(have) and not gap and shown:
        return f"the output goes on with {have[at]!r}: show it, or add a line `...`"
    return None
