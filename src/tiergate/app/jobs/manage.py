"""The other commands of batches: what there is, one as it is now, and what can be done with it."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tiergate.app.jobs.house import batch_house
from tiergate.app.jobs.panel import Speed, ended, line, total
from tiergate.app.jobs.tables import replacing
from tiergate.app.moments import clock_text
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.core import CannotStart
from tiergate.wire import dumps

_SHOWN: Final = 50


async def show(
    loaded: Loaded | None,
    environ: Mapping[str, str],
    batch_id: str | None,
    gateway: str | None,
    *,
    as_json: bool,
) -> None:
    """Print one batch, or the newest ones."""
    async with batch_house(loaded, environ, gateway=gateway) as house:
        if batch_id is not None:
            batch = await house.client.get(f"/v1/batches/{batch_id}")
            print(dumps(batch).decode() if as_json else _told(batch))
            return
        page = await house.client.get(f"/v1/batches?limit={_SHOWN}")
    if as_json:
        print(dumps(page).decode())
        return
    if not page["data"]:
        print("There are no batches yet: tiergate batch run IN.jsonl -o OUT.jsonl")
        return
    _print_batches(page["data"], "UTC" if loaded is None else loaded.settings.timezone)
    if page["has_more"]:
        print(f"These are the newest {_SHOWN}.")


async def act(
    loaded: Loaded | None,
    environ: Mapping[str, str],
    path: str,
    body: Mapping[str, Any],
    gateway: str | None,
    *,
    as_json: bool,
) -> Mapping[str, Any]:
    """Do something with a batch, and give what it is then."""
    async with batch_house(loaded, environ, gateway=gateway) as house:
        batch: Mapping[str, Any] = await house.client.post(f"/v1/batches/{path}", body)
        if as_json:
            print(dumps(batch).decode())
        elif house.is_ours and batch["status"] not in ("cancelling", "cancelled"):
            print("No gateway runs, so nobody works it: start one, or give the command of `batch run` again.")
    return batch


async def write_output(
    loaded: Loaded | None,
    environ: Mapping[str, str],
    batch_id: str,
    output: Path | None,
    gateway: str | None,
    *,
    which: str,
) -> None:
    """Write what a batch has answered by now, in the order of its input, or what has failed of it."""
    async with batch_house(loaded, environ, gateway=gateway) as house:
        batch = await house.client.get(f"/v1/batches/{batch_id}")
        file_id = batch["error_file_id" if which == "errors" else "output_file_id"]
        if file_id is None:
            raise CannotStart(f"{batch_id} has no {which} yet.")
        both = "?all=true" if which == "all" else ""
        pieces = house.client.download(f"/v1/files/{file_id}/content{both}")
        if output is None:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            return
        with replacing(output) as file:
            async for piece in pieces:
                file.write(piece)
    print(f"{output}: {ended(batch):,} of {total(batch):,} lines had ended.")


def retry_body(codes: Sequence[str] | None) -> dict[str, Any]:
    """Give what is sent to ask failed lines again."""
    return {} if not codes else {"codes": list(codes)}


def _print_batches(batches: Sequence[Mapping[str, Any]], zone: str) -> None:
    right = ("lines", "ended", "failed", "answers")
    table = plain_table("batch", "state", "key", f"created ({zone})", right=right)
    for batch in batches:
        ours = batch["tiergate"]
        state = ours["state"] + (f": {ours['reason']}" if ours["reason"] else "")
        created = datetime.fromtimestamp(batch["created_at"], UTC).isoformat()
        table.add_row(
            batch["id"],
            state,
            shown(ours["key"]),
            clock_text(created, zone)[:16],
            f"{total(batch):,}",
            f"{ended(batch):,}",
            f"{batch['request_counts']['failed']:,}",
            f"${ours['answers_usd']:.4f}",
        )
    print_table(table)


def _told(batch: Mapping[str, Any]) -> str:
    ours = batch["tiergate"]
    lines = [f"{batch['id']}  {line(batch, Speed())}"]
    if ours["message"]:
        lines.append(f"  why       {ours['message']}")
    if ours["until"]:
        lines.append(f"  until     {ours['until']}")
    for code, count in ours["errors"].items():
        lines.append(f"  failed    {count:,} {code}")
    if ours["interrupted"]:
        lines.append(f"  asked     {ours['interrupted']:,} lines again, since a gateway died with them")
    return "\n".join(lines)
