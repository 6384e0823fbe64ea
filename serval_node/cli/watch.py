"""`serval watch`: the tables of the node, again and again, with what changed marked.

One request for each picture, at most five a second; a node that needs long for it is asked more rarely, so that looking
costs it a tenth of its time at the most.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from serval_node.cli.output import clock
from serval_node.cli.terminal import Terminal, screen_size
from serval_node.cli.watch_changes import Change
from serval_node.cli.watch_lines import change_lines, picture, start_lines
from serval_node.cli.watch_model import HOLD_SECONDS, Model
from serval_node.cli.watch_options import TABLES
from serval_node.control.local import Client, ControlError

_ANSWER_LIMIT = 2.0
_LARGEST_SHARE = 0.1
_DUMB = ("", "dumb", "unknown")


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds`: how long, None for as long as nobody ends it."""

    tables: tuple[str, ...] = TABLES
    interval: float = 1.0
    seconds: float | None = None
    once: bool = False


class Source:
    """Asks the node for pictures, not more often than it bears."""

    def __init__(self, path: str, options: Options) -> None:
        self._client = Client(path, timeout=_ANSWER_LIMIT)
        self._interval = options.interval
        self._next = 0.0
        self._named = False
        self.interval = options.interval
        self.model = Model(options.tables, hold=max(HOLD_SECONDS, options.interval))

    def due(self) -> float:
        """Seconds until the next picture."""
        return self._next - time.monotonic()

    def ask(self) -> dict[str, list[Change]]:
        """The next picture, taken into the model; what changed in it. Raises ControlError."""
        started = time.monotonic()
        self._next = started + self._interval
        if not self._named:
            self.model.name_hosts(self._client.request("hosts")["hosts"])
            self._named = True
        answer = self._client.request("snapshot", **self.model.request())
        now = time.monotonic()
        self.interval = max(self._interval, (now - started) / _LARGEST_SHARE)
        self._next = started + self.interval
        return self.model.take(answer, now, time.time())

    def close(self) -> None:
        self._client.close()


def watch(path: str, options: Options) -> int:
    """Show the node that listens at `path` until the user ends it; raises ControlError only with `once`."""
    source = Source(path, options)
    try:
        if options.once:
            source.ask()
            print(picture(source.model, time.monotonic()))
            return 0
        if sys.stdout.isatty() and os.environ.get("TERM", "") not in _DUMB:
            return _live(source, options)
        return _lines(source, options)
    except KeyboardInterrupt:
        return 0  # the usual way to end it
    finally:
        source.close()


def _turns(options: Options) -> Iterator[float]:
    """The seconds that are left, until none are."""
    end = None if options.seconds is None else time.monotonic() + options.seconds
    while end is None or time.monotonic() < end:
        yield float("inf") if end is None else end - time.monotonic()


def _lines(source: Source, options: Options) -> int:
    first = True
    for left in _turns(options):
        lines: list[str] = []
        now = clock(time.time())
        try:
            came_back = source.model.trouble is not None
            changes = source.ask()
            if came_back:
                lines.append(f"{now} ! the node of {source.model.status['name']} answers again")
            lines += start_lines(source.model, time.monotonic(), now) if first else change_lines(changes, now)
            first = False
        except ControlError as error:
            if source.model.lose(str(error), time.monotonic()):
                lines.append(f"{now} ! {error}; waiting for it")
        for line in lines:
            print(line)
        sys.stdout.flush()
        time.sleep(max(0.0, min(source.due(), left)))
    return 0


def _live(source: Source, options: Options) -> int:
    # Here and not above: no other command shall load it.
    from rich.console import Console
    from rich.live import Live

    from serval_node.cli.watch_keys import Keyboard
    from serval_node.cli.watch_screen import screen

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rich ends what it cuts by a character that not every locale has
    console = Console()
    keyboard = Keyboard(options.tables)
    with Terminal() as terminal, Live(console=console, screen=True, auto_refresh=False) as live:
        for left in _turns(options):
            if source.due() <= 0:
                try:
                    source.ask()
                except ControlError as error:
                    source.model.lose(str(error), time.monotonic())
            size = screen_size()
            console.size = size
            now = time.monotonic()
            shown = screen(
                source.model,
                keyboard.view,
                now=now,
                size=size,
                interval=round(source.interval, 1),
                clock=clock(time.time())[:8],
            )
            live.update(shown, refresh=True)
            try:
                keys = terminal.wait(min(source.due(), left))
            except EOFError:
                return 0
            if keyboard.press(keys, page=max(1, size[1] - 6)):
                return 0
    return 0
