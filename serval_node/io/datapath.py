"""The fast path: packets of established flows between sal0 and the raw sockets, and the slow path's way in and out.

It knows forwarding states, and nothing of names, rules or connection states. What it cannot place goes to the stack.
"""

from __future__ import annotations

import errno
import select
from collections import Counter
from dataclasses import dataclass, field

from serval_node.io.datapath_rx import FirstPacket, Receiver, SlowNetwork
from serval_node.io.datapath_rx_udp import UdpReceiver
from serval_node.io.datapath_tx import SlowKernel, Transmitter
from serval_node.io.fast_flow import FastFlow, FlowCounters, FlowPaths, Traffic
from serval_node.io.raw_ip import SAL_PROTOCOL, RawIp
from serval_node.io.sender import Sender
from serval_node.io.system_calls import TimerDescriptor
from serval_node.io.tun import Tun
from serval_node.io.udp_encap import UdpEncapsulation
from serval_node.io.unacknowledged import Memory, Unacknowledged, payload_size
from serval_node.sal.flow_table import ForwardingState
from serval_node.sal.outputs import Deliver, DoubtSent, Send, SendAgain
from serval_node.wire.encapsulation import encapsulate
from serval_node.wire.ipv4 import PROTOCOL_TCP, address_text, build_ipv4

DEFAULT_MTU = 1500


def vector_available() -> bool:
    """Whether numpy is there: only then is segmentation offload on sal0 worth asking for."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures since the start. Packets and bytes as in FlowCounters, over all flows; slow_* packets went to the
    stack; sent_again_* are what lost paths had swallowed. kept_bytes is what is kept now of unacknowledged segments,
    and kept_forgotten counts copies that had to give way. `drops` counts packets by reason, those that the kernel
    dropped at our sockets and at sal0 included."""

    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    slow_kernel: int = 0
    slow_network: int = 0
    stalls: int = 0
    sent_again_packets: int = 0
    sent_again_bytes: int = 0
    kept_bytes: int = 0
    kept_forgotten: int = 0
    drops: dict[str, int] = field(default_factory=dict)


class DataPath:
    """The event loop watches `fileno()` for readability and calls `ready()`.

    While every sender in use is shut, sal0 is not read: the kernel's packets wait there, and nothing is lost but what
    sal0's own queue cannot hold. While only some are, what is for them waits in their own queues.
    """

    def __init__(
        self,
        tun: Tun,
        raw: RawIp,
        *,
        stack_kernel: SlowKernel,
        stack_network: SlowNetwork,
        on_first_packet: FirstPacket,
        mtu: int = DEFAULT_MTU,
        vector: bool | None = None,
        udp: UdpEncapsulation | None = None,
    ) -> None:
        """`stack_kernel(packet, gso_size)` and `stack_network(packet)` get what the fast path does not take: whole
        IPv4 packets, in memory that is valid during the call only. `on_first_packet(local_flow)` tells of the first
        fast-path packet from the peer since the flow's last `install`. `mtu` is the largest of the host's links.
        `vector` forces the numpy path on or off; off needs a Tun without offload. `udp` is for packets inside UDP;
        without it none are received. Callbacks may call every method.
        """
        self._tun = tun
        self._raw = raw
        self._udp = udp
        self._paths = FlowPaths()
        self._memory: Memory | None = Memory()
        self._retired = [0, 0, 0, 0]
        self._sent_again = [0, 0]
        self._stalls = 0
        self._users: Counter[Sender] = Counter()  # senders that flows are installed for
        self._blocked: dict[int, Sender] = {}  # shut by a full socket buffer, by descriptor
        self._resting: set[Sender] = set()  # shut until the timer
        self._timer = TimerDescriptor()
        self._paused = False
        self._delivered = False  # since sal0 was last read
        self.vector = vector_available() if vector is None else vector
        if tun.offload and not self.vector:
            raise ValueError("a TUN device with offloads needs the vector path")
        self._transmitter, self._receiver = self._engines(stack_kernel, stack_network, on_first_packet, mtu)
        self._epoll = select.epoll()
        self._epoll.register(tun.fileno(), select.EPOLLIN)
        self._epoll.register(raw.receiver.fileno(), select.EPOLLIN)
        self._epoll.register(raw.shaper_events.fileno(), select.EPOLLIN)
        self._epoll.register(self._timer.fileno(), select.EPOLLIN)
        self._udp_receivers = self._receivers_of(udp, stack_network, on_first_packet)
        for descriptor in self._udp_receivers:
            self._epoll.register(descriptor, select.EPOLLIN)

    def _engines(
        self, kernel: SlowKernel, network: SlowNetwork, first: FirstPacket, mtu: int
    ) -> tuple[Transmitter, Receiver]:
        tun, raw, paths = self._tun, self._raw, self._paths
        if not self.vector:
            return Transmitter(tun, paths, kernel, self._shut), Receiver(tun, raw.receiver, paths, network, first)
        from serval_node.io.datapath_rx_vector import VectorReceiver
        from serval_node.io.datapath_tx_vector import VectorTransmitter

        return (
            VectorTransmitter(tun, paths, kernel, self._shut),
            VectorReceiver(tun, raw.receiver, paths, network, first, mtu=mtu),
        )

    def _receivers_of(
        self, udp: UdpEncapsulation | None, network: SlowNetwork, first: FirstPacket
    ) -> dict[int, UdpReceiver]:
        kind = UdpReceiver
        if self.vector:
            from serval_node.io.datapath_rx_udp_vector import VectorUdpReceiver

            kind = VectorUdpReceiver
        sockets = {} if udp is None else udp.receivers
        return {
            sock.fileno(): kind(self._tun, sock, self._paths, network, first, port=port)
            for port, sock in sockets.items()
        }

    def fileno(self) -> int:
        """A descriptor that is readable when `ready()` has something to do."""
        return self._epoll.fileno()

    def ready(self) -> None:
        """Handles what is there, a bounded number of packets. Never blocks. Raises OSError when sal0 is gone."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._tun.fileno():
                self.kernel_readable()
            elif fd == self._raw.receiver.fileno():
                self.network_readable()
            elif fd in self._udp_receivers:
                self._udp_receivers[fd].receive()
            elif fd == self._timer.fileno():
                self._rested()
            elif fd == self._raw.shaper_events.fileno():
                self._raw.shapers_changed()
            else:
                self._writable(fd)
        if self._delivered:
            # The kernel has answered already (a SYN by SYN-ACK, that by ACK): no need to be woken for it.
            self._delivered = False
            self.kernel_readable()

    def kernel_readable(self) -> None:
        """Handles packets from sal0."""
        if not self._paused:
            self._transmitter.transmit()

    def network_readable(self) -> None:
        """Handles packets from the network."""
        self._receiver.receive()

    def install(self, state: ForwardingState) -> None:
        """Lets the packets of a TCP flow take the fast path from now on, or replaces its state (a migration); the
        counters go on. There is no fast path for other protocols: their packets go on going to the stack."""
        if state.protocol != PROTOCOL_TCP:
            return
        sender = self._sender(state)
        if sender is None:
            self.remove(state.local_flow)
            return
        flow = self._paths.by_flow.get(state.local_flow)
        if flow is None:
            flow = FastFlow(state, sender, self._new_copies())
        else:
            self._paths.discard(flow)
            self._leave(flow.sender)
            flow.apply(state, sender)
        self._paths.add(flow)
        self._users[sender] += 1
        self._set_paused()

    def _sender(self, state: ForwardingState) -> Sender | None:
        if state.ports is None:
            return self._raw.sender(state.local_address)
        # The stack sends inside UDP through the raw sockets, and so does without these.
        return None if self._udp is None else self._udp.sender(state.local_address, state.ports.local)

    def remove(self, local_flow: int) -> FlowCounters | None:
        """Lets the flow's packets go to the stack again; its last counters, or None when it was not installed."""
        flow = self._paths.by_flow.get(local_flow)
        if flow is None:
            return None
        self._paths.discard(flow)
        self._leave(flow.sender)
        self._set_paused()
        if flow.unacknowledged is not None:
            flow.unacknowledged.clear()
        if self._memory is not None and not self._paths.by_flow:
            self._memory.release()
        counters = flow.counters()
        for index, figure in enumerate(_traffic(counters)):
            self._retired[index] += figure
        return counters

    @property
    def keeping(self) -> bool:
        """Whether copies of unacknowledged segments are kept, to be sent again when a path is lost."""
        return self._memory is not None

    @keeping.setter
    def keeping(self, on: bool) -> None:
        if on == self.keeping:
            return
        self._memory = Memory() if on else None
        for flow in self._paths.by_flow.values():
            flow.unacknowledged = self._new_copies()

    def _new_copies(self) -> Unacknowledged | None:
        return None if self._memory is None else Unacknowledged(self._memory)

    def doubt(self, output: DoubtSent) -> None:
        """What this flow sent until now may be lost with its path."""
        flow = self._paths.by_flow.get(output.local_flow)
        if flow is not None:
            flow.doubted = flow.sent_next

    def send_again(self, output: SendAgain) -> tuple[int, int]:
        """Sends what was in doubt and the peer lacks, before anything that waits for the same sender; the packets and
        bytes of payload. They are paced and counted as everything that a flow sends.
        """
        flow = self._paths.by_flow.get(output.local_flow)
        if flow is None or flow.unacknowledged is None or flow.doubted < 0:
            return 0, 0
        before, flow.doubted = flow.doubted, -1
        copies = flow.unacknowledged
        for acknowledged in (output.acknowledged, flow.peer_ack):
            if acknowledged is not None and acknowledged >= 0:
                copies.trim(acknowledged)
        packets = list(copies.lacking(before, output.had, flow.own_ack, flow.own_window))
        sizes = [payload_size(packet, flow.room) for packet in packets]
        sender = flow.sender
        for packet in reversed(packets):
            sender.hold_first(packet)
        if sender.shut():
            self._shut(sender)
        else:
            self._transmitter.resume(sender)
        sent = sum(-(-whole // each) for whole, each in sizes), sum(whole for whole, _ in sizes)
        self._sent_again = [old + new for old, new in zip(self._sent_again, sent, strict=True)]
        return sent

    def counters(self, local_flow: int) -> FlowCounters | None:
        """The flow's counters; None when it is not installed."""
        flow = self._paths.by_flow.get(local_flow)
        return None if flow is None else flow.counters()

    @property
    def active(self) -> bool:
        """Whether a flow had traffic since `traffic` was last called."""
        return bool(self._paths.active)

    def traffic(self) -> list[Traffic]:
        """What the flows that had traffic did since the last call."""
        return self._paths.traffic()

    def totals(self) -> Totals:
        sums = list(self._retired)
        for flow in self._paths.by_flow.values():
            for index, figure in enumerate(_traffic(flow.counters())):
                sums[index] += figure
        drops = self._paths.drops + self._raw.drops
        drops["receive_buffer_full"] = self._raw.kernel_drops()
        if self._udp is not None:
            drops["receive_buffer_full"] += self._udp.kernel_drops()
        drops["sal0_queue_full"] = self._tun.kernel_drops()
        named = {reason: number for reason, number in sorted(drops.items()) if number}
        return Totals(
            sent_packets=sums[0],
            sent_bytes=sums[1],
            received_packets=sums[2],
            received_bytes=sums[3],
            slow_kernel=self._paths.slow_kernel,
            slow_network=self._paths.slow_network,
            stalls=self._stalls,
            sent_again_packets=self._sent_again[0],
            sent_again_bytes=self._sent_again[1],
            kept_bytes=0 if self._memory is None else self._memory.used,
            kept_forgotten=0 if self._memory is None else self._memory.forgotten,
            drops=named,
        )

    def send(self, output: Send) -> None:
        """Sends a packet of the stack. Waits for nothing and raises nothing: see Sender.send."""
        if output.ports is None:
            packet = build_ipv4(output.source, output.destination, SAL_PROTOCOL, output.data, ttl=output.ttl)
        else:
            packet = encapsulate(output.source, output.destination, output.ports, output.data, ttl=output.ttl)
        sender = self._raw.unbound if output.forwarded else self._raw.sender(output.source)
        sender.send(packet, (address_text(output.destination), 0))
        if sender.backlog:
            self._shut(sender)

    def deliver(self, output: Deliver) -> None:
        """Gives the kernel a packet of the stack; one that it refuses is counted."""
        self._delivered = True
        try:
            self._tun.write(output.packet)
        except OSError as error:
            self._paths.drops["kernel_" + errno.errorcode.get(error.errno or 0, str(error.errno)).lower()] += 1

    def close(self) -> None:
        """Releases what this object made; the Tun and RawIp are the caller's."""
        self._epoll.close()
        self._timer.close()

    def _leave(self, sender: Sender) -> None:
        self._users[sender] -= 1
        if not self._users[sender]:
            del self._users[sender]

    def _shut(self, sender: Sender) -> bool:
        """Sees to it that `sender` is resumed when it is open again. Returns whether sal0 is to be read on."""
        if sender.backlog:
            if sender.fileno() not in self._blocked:
                self._blocked[sender.fileno()] = sender
                self._epoll.register(sender.fileno(), select.EPOLLOUT)
                self._stalls += 1
        elif sender.pace is not None and sender not in self._resting:
            self._resting.add(sender)
            self._set_timer()
        self._set_paused()
        return not self._paused

    def _set_paused(self) -> None:
        blocked = self._blocked.values()
        # Before any flow is there, all that is sent is the stack's: it can wait.
        paused = bool(blocked or self._resting) and all(
            sender in blocked or sender in self._resting for sender in self._users
        )
        if paused != self._paused:
            self._paused = paused
            self._epoll.modify(self._tun.fileno(), 0 if paused else select.EPOLLIN)

    def _set_timer(self) -> None:
        times = [sender.pace.opens_at for sender in self._resting if sender.pace is not None]
        if len(times) < len(self._resting):
            times.append(0.0)  # its shaper went away
        if times:
            self._timer.set(min(times))

    def _rested(self) -> None:
        self._timer.acknowledge()
        rested = [sender for sender in self._resting if sender.backlog or not sender.shut()]
        self._resting.difference_update(rested)
        for sender in rested:
            self._transmitter.resume(sender)
        self._set_timer()
        self._set_paused()
        self.kernel_readable()

    def _writable(self, fd: int) -> None:
        sender = self._blocked.get(fd)
        if sender is None or not sender.flush():
            return
        del self._blocked[fd]
        self._epoll.unregister(fd)
        self._transmitter.resume(sender)
        self._set_paused()


def _traffic(counters: FlowCounters) -> tuple[int, int, int, int]:
    return counters.sent_packets, counters.sent_bytes, counters.received_packets, counters.received_bytes
