"""`tiergate cache`: what the gateway that runs keeps of answers."""

from collections.abc import Mapping
from typing import Any, Final

from tiergate.app.administering import administered, check_running
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.wire import dumps

_MIB: Final = 1 << 20
_WHAT: Final = "what is kept of answers"


async def show_cache(loaded: Loaded, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Print what is kept, and what became of calls and answers since the start.

    Raises:
        CannotStart: no gateway runs.
    """
    check_running(loaded, _WHAT)
    async with administered(loaded, environ) as ask:
        found = await ask("/api/cache", None)
    if as_json:
        print(dumps(found).decode())
        return
    used, most = found["bytes"] / _MIB, found["bytes_max"] / _MIB
    print(f"{found['answers']:,} answers, {used:,.1f} of {most:,.0f} MiB; {found['evicted']:,} made room.")
    if found["dry_run"]:
        print("A dry run: nothing is kept or given. `tiergate report savings --dry-run` says what could be.")
    table = plain_table("since the start", "", right=("calls",))
    for outcome, row in sorted(found["calls"].items()):
        table.add_row(outcome, "", f"{row['calls']:,}")
        for reason, count in sorted(row["reasons"].items()):
            table.add_row("", shown(reason), f"{count:,}")
    for result, count in sorted(found["kept"].items()):
        table.add_row("" if result == "kept" else "not kept", result, f"{count:,}")
    print_table(table)


async def purge_cache(
    loaded: Loaded, environ: Mapping[str, str], wish: Mapping[str, Any], *, as_json: bool
) -> None:
    """Delete what is kept of a tenant, of a model, or all; where no gateway runs, on the disk or in Redis."""
    async with administered(loaded, environ) as ask:
        done = await ask("/api/cache/purge", wish)
    if as_json:
        print(dumps(done).decode())
    else:
        print(f"None of it is given again; {done['purged']:,} answers of it were in memory.")


async def erase_tenant(
    loaded: Loaded, environ: Mapping[str, str], wish: Mapping[str, Any], *, as_json: bool
) -> None:
    """Delete all text that is kept of a tenant."""
    async with administered(loaded, environ) as ask:
        done = await ask("/api/erase", wish)
    if as_json:
        print(dumps(done).decode())
    else:
        print(
            f"No text of it is kept any more: nothing in the cache; {done['receipts']:,} receipts, "
            f"{done['batches']:,} batches and {done['files']:,} files are gone. "
            "Its calls stay in the ledger, with numbers only."
        )
