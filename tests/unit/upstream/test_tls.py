"""Which issuers are trusted, and for how long what was read of them is kept."""

import asyncio
import os
from pathlib import Path

from tiergate.upstream.tls import Trust

ISSUER = Path(__file__).parents[2] / "contract/certificates/issuer.pem"


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    """The same file gives the same context; one of the same size and a later time gives another."""
    ca_file = tmp_path / "issuers.pem"
    ca_file.write_bytes(ISSUER.read_bytes())

    async def main() -> None:
        trust = Trust()
        first = await trust.context(str(ca_file), "acme")
        assert await trust.context(str(ca_file), "acme") is first
        later_ns = ca_file.stat().st_mtime_ns + 1_000_000
        os.utime(ca_file, ns=(later_ns, later_ns))
        assert await trust.context(str(ca_file), "acme") is not first

    asyncio.run(main())


def test_contexts_are_bounded(tmp_path: Path) -> None:
    """Reloads that name ever new files do not fill memory: the oldest context goes."""
    paths = [tmp_path / f"{number}.pem" for number in range(65)]
    for path in paths:
        path.write_bytes(ISSUER.read_bytes())

    async def main() -> None:
        trust = Trust()
        made = [await trust.context(str(path), "acme") for path in paths]
        assert await trust.context(str(paths[-1]), "acme") is made[-1]
        assert await trust.context(str(paths[0]), "acme") is not made[0]

    asyncio.run(main())
