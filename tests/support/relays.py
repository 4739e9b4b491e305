"""A relay before a server, which can be cut."""

from __future__ import annotations

import socket
import threading
from typing import Self

__all__ = ["Relay"]


class Relay:
    """Relays connections to a server, until it is cut; then it refuses them until it is mended.

    Args:
        host: the host of the server.
        port: the port of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_cut = self._is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        self.cut()
        socket.create_connection(("127.0.0.1", self.port)).close()  # which ends `_accept`
        self._listener.close()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        with self._lock:
            self._is_cut = True
            for it in self._open:
                with_reset(it)
            self._open.clear()

    def mend(self) -> None:
        """Relay connections again."""
        with self._lock:
            self._is_cut = False

    def _accept(self) -> None:
        while not self._is_over:
            client, _ = self._listener.accept()
            with self._lock:
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def with_reset(it: socket.socket) -> None:
    """Break a connection at once."""
    try:
        it.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is broken already
        pass
    it.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    except OSError:
        pass
    for it in (source, sink):
        with_reset(it)
