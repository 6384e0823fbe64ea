"""The daemon's log: one line each on standard error, with the wall clock, where the launcher put servald.log."""

from __future__ import annotations

import sys
import time


def log(text: str) -> None:
    """Write one line; several lines of `text` become several lines of the log."""
    stamp = time.strftime("%H:%M:%S", time.localtime())
    for line in text.splitlines() or [""]:
        sys.stderr.write(f"{stamp} {line}\n")
    sys.stderr.flush()
