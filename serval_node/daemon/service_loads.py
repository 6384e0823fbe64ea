"""How busy this node is with each of its services: what it counts itself, and what an instance says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from serval_node.control.messages import Binding, ServiceLoad
from serval_node.daemon.loop import Callback, Timer
from serval_node.sal.events import Event, FlowClosed, FlowOpened, SynReceived
from serval_node.wire.serviceid import Prefix

REPORT_SECONDS = 0.2
"""Figures of instances go to the controller at most once in this time; of several the last one counts."""


class ServiceLoads:
    """Flows per DEMUX rule, open now and accepted since the start, and figures that instances have given.

    `tell` sends all of it to the controller. It is called when a figure has been given; the controller asks too.
    """

    def __init__(self, call_later: Callable[[float, Callback], Timer], tell: Callable[[], None]) -> None:
        self.open: Counter[Prefix] = Counter()
        self.accepted: Counter[Prefix] = Counter()
        self._half_open: dict[int, Prefix] = {}
        self._served: dict[int, Prefix] = {}
        self._figures: dict[Prefix, float] = {}
        self._call_later = call_later
        self._tell = tell
        self._pause: Timer | None = None
        self._news = False

    def handle(self, event: Event) -> None:
        if isinstance(event, SynReceived):
            self._half_open[event.flow_id] = event.prefix
        elif isinstance(event, FlowOpened) and event.server:
            prefix = self._half_open.pop(event.flow_id, None)
            if prefix is not None:
                self._served[event.flow_id] = prefix
                self.open[prefix] += 1
                self.accepted[prefix] += 1
        elif isinstance(event, FlowClosed):
            self._half_open.pop(event.flow_id, None)
            prefix = self._served.pop(event.flow_id, None)
            if prefix is not None:
                self.open[prefix] -= 1

    def services(self, registered: Iterable[Binding]) -> tuple[ServiceLoad, ...]:
        """The state of each service that the controller knows to be served here."""
        return tuple(
            ServiceLoad(item.prefix, self.open[item.prefix], self.accepted[item.prefix], self._figures.get(item.prefix))
            for item in registered
        )

    def give(self, prefix: Prefix, figure: float | None) -> None:
        """An instance says how busy it is, in the place of its number of open flows; None: that number counts again."""
        if figure is None:
            self._figures.pop(prefix, None)
        else:
            self._figures[prefix] = figure
        self._news = True
        if self._pause is None:
            self._report()

    def withdrawn(self, prefix: Prefix) -> None:
        """Nothing listens for the service any more: what its instance said was about itself."""
        self._figures.pop(prefix, None)

    def _report(self) -> None:
        self._pause = None
        if self._news:
            self._news = False
            self._tell()
            self._pause = self._call_later(REPORT_SECONDS, self._report)
