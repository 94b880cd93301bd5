"""What sockets and TLS say, turned into our errors; the sentences hold no address and no upstream text."""

import errno
import os
import socket
import ssl

from tiergate.core import Delivery, UpstreamError, UpstreamInterrupted, UpstreamTimeout, UpstreamUnreachable


def unreachable(label: str, error: OSError | UnicodeError) -> UpstreamUnreachable:
    """Say why no connection could be made; nothing was delivered."""
    return UpstreamUnreachable(f"{label} {_why_no_connection(error)}.", delivery=Delivery.NONE)


def closed(label: str) -> UpstreamUnreachable:
    """Say that the transport takes no more requests; nothing was delivered."""
    return UpstreamUnreachable(f"{label} was not called: the gateway is stopping.", delivery=Delivery.NONE)


def no_issuers(label: str, error: OSError) -> UpstreamUnreachable:
    """Say that the file of issuers to trust cannot be used; nothing was delivered."""
    reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else _system_words(error)
    return UpstreamUnreachable(
        f"{label} was not called: its ca_file cannot be used ({reason}).", delivery=Delivery.NONE
    )


def too_slow(label: str, phase: str, delivery: Delivery) -> UpstreamTimeout:
    """Say in which phase the time was over."""
    return UpstreamTimeout(f"{label} {_TOO_SLOW[phase]}.", phase=phase, delivery=delivery)


def interrupted(label: str, delivery: Delivery, error: BaseException | None = None) -> UpstreamError:
    """Say that the connection ended before the response did."""
    how = "broke" if error is not None else "was closed"
    if delivery is Delivery.CONFIRMED:
        return UpstreamInterrupted(
            f"{label}: the connection {how} before the answer's end.", delivery=delivery
        )
    return UpstreamInterrupted(
        f"{label}: the connection {how} before any answer; the request may have been received.",
        delivery=delivery,
    )


_TOO_SLOW = {
    "connect": "did not accept a connection in time",
    "pool": "has all its connections in use, and none became free in time: lower the load, or set or raise "
    "providers.NAME.limits.concurrency",
    "first_event": "did not begin to answer in time",
    "idle": "stopped in the middle of its answer",
    "total": "did not answer before the deadline",
}


def _why_no_connection(error: OSError | UnicodeError) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"has a TLS certificate that does not hold: {error.verify_message.rstrip('.')}"
        case ssl.SSLError():
            return (
                "could not agree on TLS with us; look whether its base_url is https where it should be http"
            )
        case socket.gaierror() | UnicodeError():
            return "has a host name that could not be resolved; look at its base_url and at the name server"
        case ConnectionRefusedError():
            return "refused the connection: nothing listens there; start it, or correct its base_url"
        case ConnectionResetError() | ConnectionAbortedError():
            return "closed the connection before the request was sent"
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return "could not be called: this process has no file descriptor left"
        case _:
            return f"could not be reached: {_system_words(error)}"


def _system_words(error: OSError) -> str:
    # From the number and not from the message: loops write addresses into the message.
    return os.strerror(error.errno) if error.errno is not None else "no reason given"
