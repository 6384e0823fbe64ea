"""What a flow of datagrams keeps in the place of TCP: datagrams that its handshake has to precede, and its figures."""

from __future__ import annotations

HELD_DATAGRAMS = 32
HELD_BYTES = 64 << 10


class DatagramRecord:
    """Of one flow of protocol UDP. Packets and bytes are those of the transport, UDP header included."""

    __slots__ = (
        "closing",
        "held",
        "held_bytes",
        "idle_at",
        "packets_in",
        "packets_out",
        "received_bytes",
        "sent_bytes",
    )

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.held_bytes = 0
        # The program has closed its socket; what is held still goes.
        self.closing = False
        # When the flow is closed unless something passes before.
        self.idle_at = 0.0
        self.packets_out = self.sent_bytes = 0
        self.packets_in = self.received_bytes = 0

    def hold(self, segment: bytes) -> bool:
        """Keep a datagram until both ends know each other; False when there are too many already."""
        if len(self.held) >= HELD_DATAGRAMS or self.held_bytes + len(segment) > HELD_BYTES:
            return False
        self.held.append(segment)
        self.held_bytes += len(segment)
        return True

    def release(self) -> list[bytes]:
        """What was held, in order of arrival; nothing is held any more."""
        held, self.held, self.held_bytes = self.held, [], 0
        return held

    def sent(self, size: int) -> None:
        self.packets_out += 1
        self.sent_bytes += size

    def received(self, size: int) -> None:
        self.packets_in += 1
        self.received_bytes += size

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """Packets and bytes out, packets and bytes in."""
        return self.packets_out, self.sent_bytes, self.packets_in, self.received_bytes
