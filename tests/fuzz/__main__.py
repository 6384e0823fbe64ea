"""`make fuzz`: each target gets its share of the time. A failing input is kept below results/fuzz and can be played
again; status 1 when there is one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

SECONDS = 60.0
RESULTS = Path("results/fuzz")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help="time for all together (default %(default)g)",
    )
    parser.add_argument(
        "--target", action="append", choices=TARGETS, metavar="NAME", help=f"one of {', '.join(TARGETS)}; repeatable"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="begin with this seed (default: by chance)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one kept input again, and nothing else")
    options = parser.parse_args(words)
    if options.replay is not None:
        return replay(parser, options.replay)
    if options.seconds <= 0:
        parser.error("--seconds must be more than 0")
    chosen = options.target or list(TARGETS)
    # A small one can be typed again.
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    good = True
    for name in chosen:
        good &= hunt(name, TARGETS[name], seed, options.seconds / len(chosen))
    return 0 if good else 1


def hunt(name: str, target: Target, first: int, seconds: float) -> bool:
    """Run inputs of consecutive seeds until the time is over or one fails; whether none did."""
    end = time.monotonic() + seconds
    seed = first
    while time.monotonic() < end:
        items = target.draw(random.Random(seed))
        try:
            target.run(*items)
        except Exception:  # noqa: BLE001 - whatever comes out is what we are looking for
            path = keep(name, seed, items)
            traceback.print_exc()
            print(f'{name}: seed {seed} failed; again: make fuzz ARGS="--replay {path}"')
            return False
        seed += 1
    print(f"{name:10} {target.about}: {seed - first} inputs, seeds {first} to {seed - 1}, none failed", flush=True)
    return True


def keep(name: str, seed: int, items: list[bytes]) -> Path:
    """A failing input as a file: its target and its items in hexadecimal."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}-{seed}.json"
    path.write_text(json.dumps({"target": name, "seed": seed, "items": [item.hex() for item in items]}) + "\n")
    return path


def replay(parser: argparse.ArgumentParser, path: Path) -> int:
    """Run a kept input."""
    try:
        kept = json.loads(path.read_text())
        target, items = TARGETS[kept["target"]], [bytes.fromhex(item) for item in kept["items"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        parser.error(f"{path} is no input that was kept here: {error}")
    try:
        target.run(*items)
    except Exception:  # noqa: BLE001 - see hunt
        traceback.print_exc()
        print(f"{path}: still fails")
        return 1
    print(f"{path}: does not fail any more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
