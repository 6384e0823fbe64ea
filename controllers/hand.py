"""The hand-control socket: JSON lines (`serval_node.control.local`) for `servicectl`, the testbed and tests.

Requests are handed to the apps and served in their event loops, one after the other, so that nothing that is asked by
hand can meet an app in the middle of something else.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from controllers import framework
from controllers.framework import hub
from serval_node.control.local import Client, ControlUnreachable, LineDecoder, ProtocolError, encode, refusal

LOG = logging.getLogger("controllers.hand")

ANSWER_LIMIT = 10.0
"""Seconds after which an app that does not answer is given up."""


class HandError(Exception):
    """The socket cannot be served; one line."""


class HandApp(Protocol):
    """An app that serves some operations."""

    name: str
    hand_operations: frozenset[str]

    def send_event(self, name: str, event: object) -> None: ...


class EventHandRequest(framework.EventBase):
    """A request for an app; it answers by `answer`, once, from any of its handlers."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__()
        self.request = request
        self._answers = hub.Queue()

    def answer(self, body: Mapping[str, Any]) -> None:
        self._answers.put(dict(body))

    def wait(self) -> dict[str, Any]:
        try:
            return self._answers.get(timeout=ANSWER_LIMIT)
        except hub.QueueEmpty:
            return refusal(f"the controller did not answer within {ANSWER_LIMIT:g} s; see its log")


class HandServer:
    """Serves `path` until closed. An operation that several apps have is asked of all, the answers are merged."""

    def __init__(self, path: str, apps: Sequence[HandApp]) -> None:
        self._path = path
        self._apps = apps
        self._listener = _listen(path)

    def start(self) -> None:
        hub.spawn(self._accept)

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            try:
                os.unlink(self._path)
            except FileNotFoundError:  # someone tidied up first
                pass
            listener.close()

    def _accept(self) -> None:
        while (listener := self._listener) is not None:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._listener is not None:
                    LOG.exception("the hand-control socket is gone")
                return
            hub.spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        decoder = LineDecoder()
        try:
            while data := connection.recv(65536):
                for request in decoder.feed(data):
                    connection.sendall(encode(self._answer(request)))
        except ProtocolError as error:
            _say_goodbye(connection, str(error))
        except OSError:  # the client went away: nobody is left to tell
            pass
        finally:
            connection.close()

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        op = str(request.get("op"))
        events = []
        for app in self._apps:
            if op in app.hand_operations:
                event = EventHandRequest(request)
                app.send_event(app.name, event)
                events.append(event)
        if not events:
            known = sorted({name for app in self._apps for name in app.hand_operations})
            return refusal(f"unknown operation {op!r}; known: {', '.join(known)}")
        merged: dict[str, Any] = {}
        for event in events:
            body = event.wait()
            if not body.get("ok"):
                return body
            merged.update(body)
        return merged


def _say_goodbye(connection: socket.socket, reason: str) -> None:
    try:
        connection.sendall(encode(refusal(reason)))
    except OSError:  # the client went away: nobody is left to tell
        pass


def _listen(path: str) -> Any:
    if os.path.exists(path):
        client = Client(path, timeout=1.0)
        try:
            client.fileno()
        except ControlUnreachable:
            os.unlink(path)
        else:
            raise HandError(f"{path} is in use by another controller")
        finally:
            client.close()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise HandError(f"cannot listen on {path}: {error.strerror or error}") from None
    return listener
