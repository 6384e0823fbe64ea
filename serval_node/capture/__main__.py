"""``python -m serval_node.capture FILE [--verbose]``: the Serval packets of a capture, one line each or in full."""

from __future__ import annotations

import argparse
import sys

from scapy.error import Scapy_Exception
from scapy.layers.inet import IP, UDP
from scapy.utils import PcapReader

from .dissector import SAL


def main(arguments: list[str] | None = None) -> int:
    """Print the capture; 0, or 1 when the file cannot be read as one."""
    parser = argparse.ArgumentParser(
        prog="python -m serval_node.capture",
        description="Show the Serval packets of a capture, one line each or in full.",
    )
    parser.add_argument("file", help="a capture: pcap or pcapng")
    parser.add_argument("--verbose", action="store_true", help="every field of every layer")
    options = parser.parse_args(arguments)
    try:
        _show(options.file, verbose=options.verbose)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing more can be written, at exit neither.
        sys.stderr.close()
    except (OSError, Scapy_Exception) as error:
        sys.stderr.write(f"serval_node.capture: {options.file}: {error}\n")
        return 1
    return 0


def _show(path: str, *, verbose: bool) -> None:
    first: float | None = None
    # Opened here because scapy leaves a file open that is no capture.
    with open(path, "rb") as file, PcapReader(file) as packets:
        for packet in packets:
            if SAL not in packet:
                continue
            first = float(packet.time) if first is None else first
            ip = packet[IP]
            ports = (f":{ip.sport}", f":{ip.dport}") if isinstance(ip.payload, UDP) else ("", "")
            ends = f"{ip.src}{ports[0]} > {ip.dst}{ports[1]}"
            text = ip.show(dump=True) if verbose else f"{ends} {ip[SAL].mysummary()}"
            sys.stdout.write(f"{float(packet.time) - first:10.6f} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
