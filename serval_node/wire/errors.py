"""What a parser of this package raises about the peer's bytes: :class:`WireError` with a countable reason.

Misuse by our own code raises ``ValueError`` instead, so that a caller can drop and count the one and never hides the
other.
"""

from __future__ import annotations

from enum import Enum


class DropReason(str, Enum):
    """Why received bytes are no valid packet; the values are the counters' names."""

    TRUNCATED = "truncated"
    BAD_CHECKSUM = "bad_checksum"
    BAD_HEADER_LENGTH = "bad_header_length"
    BAD_EXTENSION = "bad_extension"
    UNKNOWN_EXTENSION = "unknown_extension"
    DUPLICATE_EXTENSION = "duplicate_extension"
    TOO_MANY_EXTENSIONS = "too_many_extensions"
    BAD_IP_HEADER = "bad_ip_header"
    IP_FRAGMENT = "ip_fragment"
    BAD_TRANSPORT_HEADER = "bad_transport_header"
    BAD_TRANSPORT_CHECKSUM = "bad_transport_checksum"
    UNKNOWN_PROTOCOL = "unknown_protocol"

    def __str__(self) -> str:
        return self.value


class WireError(Exception):
    """Received bytes that must be dropped and counted under ``reason``."""

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
