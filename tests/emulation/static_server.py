"""A server without any library, made without a compiler: it listens on port 8090 and says "static" to whoever comes.

What it is for: finding a program's listening sockets must not depend on the C library (as preloading would). Assembled
from this source (x86-64, GNU as), behind a 64-bit ELF header with one segment:

    _start: socket(2, 1, 0); ebx = it
            bind(ebx, addr, 16)
            listen(ebx, 16)
    loop:   r12d = accept(ebx, 0, 0)
            write(r12d, text, 6)
            close(r12d)
            jmp loop
    addr:   AF_INET, port 8090, 0.0.0.0
    text:   "static"
"""

from __future__ import annotations

import platform
import struct
from pathlib import Path

_CODE = bytes.fromhex(
    "b829000000bf02000000be0100000031d20f05"  # socket
    "89c389df488d354c000000ba10000000b8310000000f05"  # bind
    "89dfbe10000000b8320000000f05"  # listen
    "89df31f631d2b82b0000000f05"  # accept
    "4189c44489e7488d3528000000ba06000000b8010000000f05"  # write
    "4489e7b8030000000f05"  # close
    "ebce"  # jmp loop
    "02001f9a000000000000000000000000"  # addr
    "737461746963"  # text
)
_BASE = 0x400000
_HEADERS = 64 + 56


def write_static_server(path: Path) -> None:
    """Write the program. Raises RuntimeError on a processor that it is not for."""
    if platform.machine() != "x86_64":
        raise RuntimeError(f"the static server is x86-64 code, this is {platform.machine()}: assemble its source anew")
    size = _HEADERS + len(_CODE)
    identification = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    path.write_bytes(identification + header + segment + _CODE)
    path.chmod(0o755)
