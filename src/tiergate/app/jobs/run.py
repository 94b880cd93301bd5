"""`tiergate batch run`: an input in, its answers out, and a batch that goes on without this command."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from tiergate.app.client import GatewayError
from tiergate.app.jobs.finding import Scanned, parts, scan
from tiergate.app.jobs.flat import flat_rows
from tiergate.app.jobs.house import BatchHouse, batch_house
from tiergate.app.jobs.inputs import open_input
from tiergate.app.jobs.panel import Speed, clock, ended, line, panel, total
from tiergate.app.jobs.tables import check_place, replacing, take_away, write_table
from tiergate.app.jobs.wishes import Wish
from tiergate.config import Loaded
from tiergate.core import CannotStart
from tiergate.wire import dumps, loads

DONE, FAILED, BUDGET, INTERRUPTED = 0, 1, 3, 130
_POLL_S: Final = 0.5
_LINE_EACH_S: Final = 10.0
_OVER: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_STANDS_PARKED: Final = ("budget", "storage_broken")
"""Why a batch that is parked waits for somebody, and not only for time to pass."""
_RESUMED: Final = ("batch_cancelled", "batch_expired")
_PAGE: Final = 100

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWish:
    """What `batch run` is asked for."""

    source: Path | None
    """None: standard input."""
    output: Path | None
    """None: nothing is written, as a dry run needs no place."""
    input: Wish
    budget_usd: Decimal | None = None
    concurrency: int | None = None
    is_strict: bool = False
    by_prefix: bool = False
    is_private: bool = False
    tag: str | None = None
    window: str = "24h"
    is_fresh: bool = False
    is_dry: bool = False
    is_flat: bool = False
    is_detached: bool = False
    cancel_on_exit: bool = False
    gateway: str | None = None
    as_json: bool = False


async def run_batch(loaded: Loaded | None, environ: Mapping[str, str], wish: RunWish) -> int:
    """Run a batch; gives the exit status.

    Raises:
        TiergateError: it could not be begun; says what to do.
    """
    if wish.output is not None:
        check_place(wish.output)
    with _read_twice(wish.source) as source:
        async with batch_house(loaded, environ, gateway=wish.gateway, works=not wish.is_dry) as house:
            run = _Run(house, source, wish)
            try:
                return await run.run()
            except asyncio.CancelledError:
                return await run.interrupted()


class _Run:
    def __init__(self, house: BatchHouse, source: Path, wish: RunWish) -> None:
        self._client = house.client
        self._house = house
        self._source = source
        self._wish = wish
        self._console = Console(stderr=True)
        self._batch: Mapping[str, Any] | None = None

    @property
    def _output(self) -> Path:
        assert self._wish.output is not None, "only a dry run has none"
        return self._wish.output

    async def run(self) -> int:
        if self._wish.is_detached and self._house.is_ours:
            raise CannotStart(
                "--detach needs a gateway that runs, for somebody has to go on: tiergate serve."
            )
        found = await self._scan()
        self._tell_bad(found)
        batch = found.batch
        if batch is None or found.known < found.rows:
            await self._estimate(found)
            if self._wish.is_dry:
                return DONE
            batch = await self._send(found)
        elif self._wish.is_dry:
            self._say(f"{batch['id']} has all of these lines already ({batch['tiergate']['state']}).")
            return DONE
        else:
            batch = await self._resume(batch)
        self._batch = batch
        self._event("batch", batch)
        if self._wish.is_detached:
            self._say(f"{batch['id']} goes on in {self._house.where}.")
            return DONE
        batch = await self._follow(batch)
        return await self._finish(batch)

    async def interrupted(self) -> int:
        """Say what becomes of the batch when this command is interrupted."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if self._batch is None:
            return INTERRUPTED
        batch_id = self._batch["id"]
        if self._wish.cancel_on_exit:
            await self._client.post(f"/v1/batches/{batch_id}/cancel", {})
            self._say(f"{batch_id} is cancelled; what is answered is kept.")
        elif self._house.is_ours:
            self._say(f"{batch_id} rests, since this process worked it. The same command goes on with it.")
        else:
            self._say(
                f"{batch_id} goes on in {self._house.where}. The same command follows it again; "
                f"`tiergate batch cancel {batch_id}` ends it."
            )
        return INTERRUPTED

    # Finding and sending.

    async def _scan(self) -> Scanned:
        known = [] if self._wish.is_fresh else await self._known()
        with self._counting("Reading the input: {:,} rows") as heard:
            return await asyncio.to_thread(scan, self._source, self._wish.input, known, heard)

    async def _known(self) -> list[Mapping[str, Any]]:
        """Give the batches that this input may belong to, when it is known what they hold."""
        told = ""
        while True:
            batches = [batch async for batch in self._batches()]
            unread = [batch["id"] for batch in batches if batch["tiergate"]["state"] == "reading"]
            if not unread or self._wish.is_dry:
                return [batch for batch in batches if batch["tiergate"]["sha256"] is not None]
            if told != unread[0]:
                told = unread[0]
                self._say(
                    f"{told} is being read and may have these lines: waiting for it (--fresh does not)."
                )
            await asyncio.sleep(_POLL_S)

    async def _batches(self) -> AsyncIterator[Mapping[str, Any]]:
        """Give all batches that were not refused."""
        after = ""
        while True:
            page = await self._client.get(f"/v1/batches?limit={_PAGE}{after}")
            for batch in page["data"]:
                if batch["status"] != "failed":
                    yield batch
            if not page["has_more"]:
                return
            after = f"&after={page['last_id']}"

    async def _estimate(self, found: Scanned) -> None:
        if not found.sample:
            return
        wish = self._wish
        body: dict[str, Any] = {"bodies": found.sample, "lines": found.rows - found.known}
        if wish.budget_usd is not None:
            body["budget_usd"] = str(wish.budget_usd)
        if wish.concurrency is not None:
            body["concurrency"] = wish.concurrency
        try:
            told = await self._client.post("/v1/batches/estimate", body)
        except GatewayError as error:
            if wish.is_dry:
                raise
            self._say(f"No estimate: {error}")
            return
        self._event("estimate", told)
        for sentence in estimate_sentences(told, wish.budget_usd):
            self._say(sentence)

    async def _send(self, found: Scanned) -> Mapping[str, Any]:
        files: list[str] = []
        with self._counting("Sending: row {:,}") as heard:
            pieces = parts(self._source, self._wish.input, after=found.known, heard=heard)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                name = f"{self._source.stem[:100]}-{len(files) + 1}.jsonl".encode("ascii", "replace").decode()
                sent = await self._client.upload("/v1/files", name.replace('"', "_"), piece, purpose="batch")
                files.append(sent["id"])
        if found.batch is None:
            batch = await self._client.post("/v1/batches", self._body(files))
            self._say(f"{batch['id']}: {found.rows:,} lines, worked by {self._house.where}.")
        else:
            batch = await self._client.post(
                f"/v1/batches/{found.batch['id']}/lines", {"input_file_ids": files}
            )
            self._say(f"{batch['id']} has {found.known:,} of these lines already and takes the others on.")
        for file_id in files:
            # Its text stays for as long as the batch does.
            await self._client.delete(f"/v1/files/{file_id}")
        return await self._changed(batch) if found.batch is not None else batch

    def _body(self, files: list[str]) -> dict[str, Any]:
        wish = self._wish
        ours: dict[str, Any] = {
            "strict": wish.is_strict,
            "by_prefix": wish.by_prefix,
            "more_input_file_ids": files[1:],
            "tag": wish.tag,
            "data": "private-only" if wish.is_private else None,
            "budget_usd": None if wish.budget_usd is None else str(wish.budget_usd),
            "concurrency": wish.concurrency,
        }
        return {
            "input_file_id": files[0],
            "endpoint": wish.input.url,
            "completion_window": wish.window,
            "tiergate": {name: value for name, value in ours.items() if value is not None},
        }

    async def _resume(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        if batch["status"] in ("cancelled", "expired"):
            batch = await self._client.post(f"/v1/batches/{batch['id']}/retry", {"codes": list(_RESUMED)})
        word = "is complete" if batch["status"] == "completed" else "goes on"
        self._say(
            f"{batch['id']} {word}: {ended(batch):,} of {total(batch):,} lines have ended "
            "(--fresh asks all of them again, as a new batch)."
        )
        return await self._changed(batch)

    async def _changed(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give a batch the budget and the concurrency of this command; one that stands still goes on."""
        if batch["status"] in _OVER:
            return batch
        wished = {"budget_usd": self._wish.budget_usd, "concurrency": self._wish.concurrency}
        ours = {
            name: str(value) if isinstance(value, Decimal) else value
            for name, value in wished.items()
            if value is not None
        }
        changed: Mapping[str, Any] = await self._client.post(f"/v1/batches/{batch['id']}", {"tiergate": ours})
        return changed

    # Following.

    async def _follow(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Show the batch until it has ended, or stands still until somebody does something."""
        speed, told_at = Speed(), 0.0
        with self._live() as live:
            while True:
                batch = await self._client.get(f"/v1/batches/{batch['id']}")
                now = monotonic()
                speed.see(batch, now)
                if self._wish.as_json:
                    self._event("progress", {**batch, "lines_per_s": round(speed.lines_per_s, 2)})
                elif live is not None:
                    live.update(panel(batch, speed))
                elif now - told_at >= _LINE_EACH_S:
                    told_at = now
                    self._say(line(batch, speed))
                if batch["status"] in _OVER or _stands(batch):
                    return batch
                await asyncio.sleep(_POLL_S)

    def _live(self) -> Any:
        if self._wish.as_json or not self._console.is_terminal:
            return _Silent()
        return Live(console=self._console, refresh_per_second=4, transient=False)

    # The end.

    async def _finish(self, batch: Mapping[str, Any]) -> int:
        files = await self._write(batch)
        ours, counts = batch["tiergate"], batch["request_counts"]
        self._event("end", {**batch, "files": {name: str(path) for name, path in files.items()}})
        self._say(
            f"{batch['id']} {_end_word(batch)}: {counts['completed']:,} answered, "
            f"{counts['failed']:,} failed, {ours['cancelled']:,} not asked; "
            f"${ours['spent_usd']:.6f} spent in {clock(ours['worked_s'])}."
        )
        if ours["interrupted"]:
            self._say(
                f"A gateway died while it waited for {ours['interrupted']:,} answers. Those lines were asked "
                "again, and both are charged."
            )
        if batch["errors"] is not None and batch["status"] == "failed":
            for one in batch["errors"]["data"][:5]:
                self._say(one["message"])
        for name, path in files.items():
            self._say(f"{name}: {path}")
        return self._status(batch)

    def _status(self, batch: Mapping[str, Any]) -> int:
        ours = batch["tiergate"]
        if _stands(batch):
            self._say(f"It stands still ({ours['reason']}): {ours['message']}")
            if ours["reason"] == "budget":
                self._say("The same command with a higher --budget-usd goes on with it.")
                return BUDGET
            self._say("The same command goes on with it.")
            return FAILED
        counts = batch["request_counts"]
        if batch["status"] == "failed" or counts["completed"] < counts["total"]:
            if counts["failed"]:
                self._say(f"`tiergate batch retry-failed {batch['id']}` asks those that failed again.")
            return FAILED
        return DONE

    async def _write(self, batch: Mapping[str, Any]) -> dict[str, Path]:
        """Write what there is, each file at one moment."""
        if batch["output_file_id"] is None:
            return {}
        wish = self._wish
        if wish.is_flat:
            await self._write_flat(batch)
            return {"rows": self._output}
        files = {"answers": self._output}
        await self._download(batch["output_file_id"], self._output)
        errors = error_path(self._output)
        if batch["error_file_id"] is not None:
            await self._download(batch["error_file_id"], errors)
            files["errors"] = errors
        else:
            take_away(errors)
        return files

    async def _download(self, file_id: str, path: Path) -> None:
        with replacing(path) as file:
            async for piece in self._client.download(f"/v1/files/{file_id}/content"):
                file.write(piece)

    async def _write_flat(self, batch: Mapping[str, Any]) -> None:
        with tempfile.TemporaryFile() as kept:
            place = f"/v1/files/{batch['output_file_id']}/content?all=true"
            async for piece in self._client.download(place):
                kept.write(piece)
            kept.seek(0)
            outputs: Iterator[Mapping[str, Any]] = (loads(row) for row in kept)

            def write() -> None:
                with open_input(self._source, wish=self._wish.input) as rows:
                    write_table(self._output, flat_rows(rows, outputs))

            await asyncio.to_thread(write)

    # Telling.

    def _tell_bad(self, found: Scanned) -> None:
        for problem in found.told:
            self._say(problem)
        if found.bad > len(found.told):
            self._say(f"… and {found.bad - len(found.told):,} more rows that ask nothing.")
        if found.bad and self._wish.is_strict:
            raise CannotStart(f"{found.bad:,} rows ask nothing, and --strict wants none. Nothing was sent.")
        if found.bad:
            self._say(f"{found.bad:,} of {found.rows:,} rows become error rows.")

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def _event(self, kind: str, value: Mapping[str, Any]) -> None:
        if self._wish.as_json:
            sys.stdout.write(dumps({"event": kind, **value}).decode() + "\n")
            sys.stdout.flush()

    def _counting(self, words: str) -> "_Counting":
        is_shown = self._console.is_terminal and not self._wish.as_json
        return _Counting(self._console, words, is_shown=is_shown)


def estimate_sentences(told: Mapping[str, Any], budget_usd: Decimal | None) -> Iterable[str]:
    """Say an estimate in words."""
    cost, seconds = told["cost_usd"], told["seconds"]
    known = told["answers_known"]
    source = (
        f"told from {known:,} earlier answers"
        if known
        else "how long answers will be is not known: anything up to the limit is as likely"
    )
    if cost is None:
        yield f"Estimate for {told['lines']:,} lines: a price is not known, so no cost can be told."
    else:
        most = "" if told["most_usd"] is None else f", never above ${told['most_usd']:.4f}"
        yield (
            f"Estimate for {told['lines']:,} lines: ${cost['middle']:.4f} (${cost['low']:.4f} to "
            f"${cost['high']:.4f}{most}), from {told['sampled']:,} of them; {source}."
        )
    if seconds is not None:
        yield (
            f"At this concurrency it takes about {clock(seconds['middle'])} ({clock(seconds['low'])} to "
            f"{clock(seconds['high'])}), if the providers allow that rate."
        )
    if budget_usd is not None and told["chance_within_budget"] is not None:
        yield f"Chance that all of it fits into ${budget_usd}: {told['chance_within_budget']:.0%}."


def error_path(output: Path) -> Path:
    """Give the file beside an output that has its errors: `out.jsonl` and `out.errors.jsonl`."""
    name, dot, endings = output.name.partition(".")
    return output.with_name(f"{name}.errors{dot}{endings}")


def _stands(batch: Mapping[str, Any]) -> bool:
    ours = batch["tiergate"]
    is_parked = ours["state"] == "parked" and ours["reason"] in _STANDS_PARKED
    is_to_stand = is_parked or ours["state"] == "stopped"
    # Until nobody works on it any more, answers are on their way.
    return is_to_stand and ours["limit"] is None


def _end_word(batch: Mapping[str, Any]) -> str:
    return str(batch["tiergate"]["state"]) if _stands(batch) else str(batch["status"])


class _Silent:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class _Counting:
    """Counts rows on a terminal, in one line that is gone at the end. It is told from another thread."""

    def __init__(self, console: Console, words: str, *, is_shown: bool) -> None:
        self._console, self._words, self._is_shown = console, words, is_shown
        self._shown_at = 0.0

    def __enter__(self) -> Callable[[int], None]:
        return self._heard

    def __exit__(self, *_: object) -> None:
        if self._shown_at:
            self._console.print(" " * (self._console.width - 1), end="\r")

    def _heard(self, rows: int) -> None:
        if self._is_shown and rows % 1_000 == 0 and monotonic() - self._shown_at > 0.2:
            self._shown_at = monotonic()
            self._console.print(self._words.format(rows), end="\r", markup=False, highlight=False)


@contextmanager
def _read_twice(source: Path | None) -> Iterator[Path]:
    """Give a file that can be read twice: that of the command, or a copy of standard input."""
    if source is not None:
        yield source
        return
    with tempfile.NamedTemporaryFile(prefix="tiergate-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Path(copy.name)
