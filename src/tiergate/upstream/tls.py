"""TLS contexts: verification of certificate and name is always on, and nothing here can switch it off."""

import asyncio
import ssl

from tiergate.upstream import failures


class Trust:
    """Makes the context for each set of issuers once: reading the system's takes milliseconds."""

    def __init__(self) -> None:
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    async def context(self, ca_file: str | None, label: str) -> ssl.SSLContext:
        """Give the context that trusts the issuers in this file; None: the system's.

        Raises:
            UpstreamUnreachable: the file cannot be read or holds no certificate.
        """
        context = self._contexts.get(ca_file)
        if context is None:
            try:
                context = await asyncio.to_thread(_verifying_context, ca_file)
            except OSError as error:
                raise failures.no_issuers(label, error) from error
            self._contexts[ca_file] = context
        return context


def _verifying_context(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    return context
