"""A wire to a database server that can be cut at a chosen instant."""

import socket
import threading
from contextlib import suppress
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self


class Cut(Enum):
    """When the wire is cut."""

    BEFORE = "before the server hears COMMIT"
    AFTER = "after the server has done it and before it says so"


class Wire:
    """Passes bytes on between clients and a server; a context that ends all connections.

    Args:
        server: the socket of the server.
    """

    def __init__(self, server: Path) -> None:
        self._server = server
        self._folder = TemporaryDirectory(prefix="tiergate-")
        self.folder = Path(self._folder.name)
        """The host that clients name."""
        self.cut: Cut | None = None
        """When to cut next; once."""
        self.is_down = False
        """Take no connection."""
        self.cuts = 0
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.folder / self._server.name))
        self._listening.listen()
        threading.Thread(target=self._take, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_down = True
        for end in [self._listening, *self._ends]:
            _end(end)
        self._folder.cleanup()

    def _take(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            self._ends += [client, server]
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        with suppress(OSError):
            while data := client.recv(65536):
                if b"COMMIT" in data and self.cut is not None:
                    when, self.cut = self.cut, None
                    self.cuts += 1
                    if when is Cut.AFTER:
                        # Nothing comes back any more; the server says that it is done when it closes.
                        _end(client, socket.SHUT_WR)
                        server.sendall(data)
                        server.shutdown(socket.SHUT_WR)
                        back.join(10)
                    break
                server.sendall(data)
        _end(client)
        _end(server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            with suppress(OSError):  # a target that hears nothing more; the source is read to its end
                target.sendall(data)


def _end(end: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with suppress(OSError):
        end.shutdown(how)
    if how == socket.SHUT_RDWR:
        end.close()
