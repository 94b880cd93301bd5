"""Ends connections that the server would hold for as long as their clients like.

granian gives no handle to a connection, so it is found among our own descriptors by its two ends. A look at
all of them costs half a millisecond where there are a thousand, so those that are due together share one.
"""

import asyncio
import contextlib
import fcntl
import math
import os
import socket
import stat
import struct
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

Client = tuple[str, str]
"""Address and port of the client's end of a connection."""
Act = Callable[[socket.socket], None]

_SOON_S: Final = 0.02
_LATER_S: Final = 1.0
"""How exact the time of an ending is, if it is soon, and else."""
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Endings:
    """The connections of one listener that are to be ended, and when. `port` is the listener's."""

    def __init__(self) -> None:
        self.port = 0
        self._due: dict[Client, tuple[float, Act]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def later(self, client: Client, act: Act, *, after_s: float) -> None:
        """Do something to the connection of `client`, then or a moment later, unless it is forgotten.

        Of two such wishes the earlier one counts.
        """
        loop = asyncio.get_running_loop()
        tick_s = _SOON_S if after_s < _LATER_S else _LATER_S
        when = math.ceil((loop.time() + after_s) / tick_s) * tick_s
        known = self._due.get(client)
        if known is not None and known[0] <= when:
            return
        self._due[client] = when, act
        if self._timer is None or self._timer.when() > when:
            self._arm(loop, when)

    def forget(self, client: Client) -> None:
        """Leave the connection of `client` alone."""
        self._due.pop(client, None)

    def now(self, acts: Mapping[Client, Act]) -> None:
        """Do something to the connections of these clients."""
        _each_connection(self.port, acts.get)

    def reset_all(self) -> None:
        """Reset every connection that came in through the listener."""
        _each_connection(self.port, lambda _: reset)

    def _arm(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(when, self._end_those_due)

    def _end_those_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        # The millisecond more is for loops whose timers count in milliseconds.
        ripe = loop.time() + 0.001
        acts = {client: act for client, (when, act) in self._due.items() if when <= ripe}
        for client in acts:
            del self._due[client]
        if acts:
            self.now(acts)
        if self._due:
            self._arm(loop, min(when for when, _ in self._due.values()))


def hang_up(connection: socket.socket) -> None:
    """Close it in order: what was written still arrives."""
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    """Close it now, whatever has not arrived."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    connection.shutdown(socket.SHUT_RDWR)


def reset_unread(connection: socket.socket) -> None:
    """Close it now if its client has not taken what was written."""
    (unread,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
    if unread:
        reset(connection)


def _each_connection(port: int, act_for: Callable[[Client], Act | None]) -> None:
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            _act_on(int(entry.name), port, act_for)


def _act_on(descriptor: int, port: int, act_for: Callable[[Client], Act | None]) -> None:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    # A copy stays the same connection even if granian closes the original meanwhile.
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6) or copy.getsockname()[1] != port:
            return
        peer = copy.getpeername()
        act = act_for((peer[0].partition("%")[0], str(peer[1])))
        if act is not None:
            act(copy)
