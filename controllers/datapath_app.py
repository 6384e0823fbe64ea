"""What the two apps have in common: a clock, and the datapaths of their kind with the one connection that counts."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from controllers import framework
from controllers.framework import hub, ofp_event, set_ev_cls
from serval_node.control.experimenter import is_serval_datapath


class EventTick(framework.EventBase):
    """Time has passed."""


class DatapathApp(framework.App, ABC):
    """An app for Serval nodes or for switches. All its work is done in its event loop, one event after the other.

    serval_nodes  which of the two; `others.shield` gives events about nodes only to apps in which it is true
    """

    OFP_VERSIONS = [framework.OPENFLOW_13]  # noqa: RUF012 - the framework's own spelling

    serval_nodes: ClassVar[bool]
    log: ClassVar[logging.Logger]
    tick_seconds: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._datapaths: dict[int, Any] = {}

    # -- what an app adds

    @abstractmethod
    def joined(self, datapath: Any, *, again: bool) -> None:
        """A datapath is there; again: before the end of its former connection was noticed, which then is not told."""

    @abstractmethod
    def left(self, datapath_id: int) -> None:
        """The connection in use is gone."""

    @abstractmethod
    def tick(self) -> None:
        """Time has passed."""

    def tick_due(self) -> bool:
        """Whether `tick` has anything to do by now."""
        return True

    def sent(self, refused: bytes) -> bool:
        """Whether an error is about a message of this app, by the start of what was refused."""
        return True

    # -- what the framework calls

    def start(self) -> Any:
        thread = super().start()
        hub.spawn(self._tick_loop)
        return thread

    def _tick_loop(self) -> None:
        while self.is_active:
            hub.sleep(self.tick_seconds)
            if self.events.empty() and self.tick_due():
                self.send_event(self.name, EventTick())

    @set_ev_cls(EventTick)
    def _on_tick(self, event: EventTick) -> None:
        self.tick()

    @set_ev_cls(ofp_event.EventOFPStateChange, [framework.MAIN, framework.DEAD])
    def _on_state_change(self, event: Any) -> None:
        datapath = event.datapath
        if datapath.id is None or is_serval_datapath(datapath.id) is not self.serval_nodes:
            return
        if event.state == framework.MAIN:
            again = datapath.id in self._datapaths and not self._is_current(datapath)
            self._datapaths[datapath.id] = datapath
            self.joined(datapath, again=again)
        elif self._is_current(datapath):
            del self._datapaths[datapath.id]
            self.left(datapath.id)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, framework.MAIN)
    def _on_error(self, event: Any) -> None:
        message = event.msg
        if message.datapath.id in self._datapaths and self.sent(bytes(message.data or b"")):
            self.log.warning("datapath %016x answers with error %d/%d", message.datapath.id, message.type, message.code)

    def _is_current(self, datapath: Any) -> bool:
        """Whether this is the connection in use, and not one that its datapath has given up."""
        return self._datapaths.get(datapath.id) is datapath
