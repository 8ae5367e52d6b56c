"""How a server leaves, so that nobody is cut off in the middle of a request: it says so where load balancers ask,
closes its door, has its sockets come back elsewhere over a window, answers what is under way, and ends.

Sockets get close code 1012 ("service restart"), never a Socket.IO DISCONNECT, after which clients would not come back.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event as Signal

from sidecar.factory import Sidecar
from sidecar.fanout.engine import close_polling
from sidecar.tls import Door

CLOSE_RESTART = 1012
REASON = "restart"
HANDSHAKES_SECONDS = 0.02
"""More than a round trip to a proxy in front: whoever has been promised a connection by then gets one. A newcomer in
this time is not answered and asks again a second later, when the port refuses; a proxy then takes the next server."""
CLOSE_SECONDS = 2.0
STOP_SECONDS = 3
GOODBYE_SECONDS = 0.5
"""For what is said last to reach TLS clients."""
LOOK_SECONDS = 0.02

SO_ATTACH_FILTER = 26
"""Linux, socket(7)."""
NO_SYN = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of the TCP header that has its flags
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # then drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # else take all of it
    )
)


@dataclass(frozen=True, slots=True)
class Drain:
    """`announce_seconds`: how long /readyz alone tells of the end, before the port closes. `window_seconds`: over which
    the sockets are closed then."""

    announce_seconds: float
    window_seconds: float


def leave(server: Any, sidecar: Sidecar, door: Door | None, drain: Drain, hurry: Signal) -> None:
    """Returns when all is over; with `hurry` set, without waiting for the announcement or the window. After these it
    takes some seconds at most, whoever is there."""
    network = sidecar.network
    sidecar.health.draining = True
    hurry.wait(drain.announce_seconds)
    sidecar.gate.closing = server.leaving = True
    close_door(server)
    # Without the port nobody who polls reaches us again; these clients spread themselves when they come back.
    close_polling(sidecar.socketio)
    network.close_all(CLOSE_RESTART, REASON, drain.window_seconds)
    # Who has asked before may ask again, and is told by the answer to go: a request that crosses a close is lost.
    _wait(lambda: hurry.is_set() or not (network.connections or server.clients), drain.window_seconds)
    network.close_all(CLOSE_RESTART, REASON, 0.0)
    _wait(lambda: not network.connections, CLOSE_SECONDS)
    for client in list(server.clients):
        client.leave()
    server.stop(timeout=STOP_SECONDS)
    if door is not None:
        splices = door.splices
        _wait(lambda: splices.all_said, GOODBYE_SECONDS)
        splices.close()
    network.stop()
    sidecar.stop()


def close_door(server: Any) -> None:
    """No connection more, and none lost that the kernel has made for us: those that wait to be accepted when a listener
    is closed are reset, and perhaps a request has been sent on them."""
    with contextlib.suppress(OSError):  # not on Linux
        refuse_newcomers(server.socket)
    gevent.sleep(HANDSHAKES_SECONDS)
    with contextlib.suppress(OSError):  # too many open files
        while not server.full() and (newcomer := server.do_read()) is not None:
            server.do_handle(*newcomer)
    server.close()


def refuse_newcomers(listener: socket.socket) -> None:
    """Let the kernel drop what asks this listener for a connection, and finish those that it has begun. Raises OSError
    where it can't."""
    program = ctypes.create_string_buffer(NO_SYN)
    address = ctypes.addressof(program)
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_SYN) // 8, address))


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Until it holds, or so long."""
    with gevent.Timeout(seconds, False):
        while not condition():
            gevent.sleep(LOOK_SECONDS)
