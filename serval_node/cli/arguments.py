"""Words of the command line that several commands read alike; each raises argparse's error for what it is not."""

from __future__ import annotations

import argparse


def seconds(text: str) -> float:
    """A length of time, more than 0."""
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    if not 0 < length < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return length
