"""When how many bytes were sent or received, noted as it happens: sixteen bytes a note, and a total that others see."""

from __future__ import annotations

import mmap
from array import array
from pathlib import Path

_SIZE = 8


class Samples:
    """times: monotonic seconds; sizes: bytes. The total stands in the file `progress` too, for `Progress`."""

    def __init__(self, progress: str | None = None) -> None:
        self.times, self.sizes = array("d"), array("Q")
        self.total = 0
        self._shared = None if progress is None else _words(Path(progress))

    def add(self, now: float, size: int) -> None:
        self.times.append(now)
        self.sizes.append(size)
        self.total += size
        if self._shared is not None:
            self._shared[0] = self.total


class Progress:
    """The total of `Samples` of another process; reading it costs no system call. Makes the file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(_SIZE))
        self._shared = _words(path)

    def total(self) -> int:
        return int(self._shared[0])


def _words(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")
