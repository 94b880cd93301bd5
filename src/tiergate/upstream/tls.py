"""TLS contexts: verification of certificate and name is always on, and nothing here can switch it off."""

import asyncio
import ssl
from pathlib import Path
from typing import Final, TypeAlias

from tiergate.upstream import failures

_CONTEXTS_MAX: Final = 64

_Version: TypeAlias = tuple[int, ...] | None
"""What tells a file from the one that was there before it; None: the system's issuers, read once."""


class Trust:
    """Makes the context for each set of issuers once: reading the system's takes milliseconds.

    A file is looked at for every context that is asked for, and read again when it is another one.
    """

    def __init__(self) -> None:
        self._contexts: dict[str | None, tuple[_Version, ssl.SSLContext]] = {}

    async def context(self, ca_file: str | None, label: str) -> ssl.SSLContext:
        """Give the context that trusts the issuers in this file; None: the system's.

        Raises:
            UpstreamUnreachable: the file cannot be read or holds no certificate.
        """
        try:
            # The version comes before the content: a file that changes in between is read once more.
            version = None if ca_file is None else await asyncio.to_thread(_version, ca_file)
            kept = self._contexts.get(ca_file)
            if kept is not None and kept[0] == version:
                return kept[1]
            context = await asyncio.to_thread(_verifying_context, ca_file)
        except OSError as error:
            raise failures.no_issuers(label, error) from error
        self._contexts.pop(ca_file, None)
        if len(self._contexts) >= _CONTEXTS_MAX:
            del self._contexts[next(iter(self._contexts))]
        self._contexts[ca_file] = version, context
        return context


def _version(path: str) -> _Version:
    found = Path(path).stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _verifying_context(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    # SSLKEYLOGFILE would write down what opens every question and answer.
    context.keylog_filename = None  # type: ignore[assignment]  # None is how it is switched off
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    return context
