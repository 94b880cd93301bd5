"""Takes the input of a job into the store: its lines, and an end at once for those that ask nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from tiergate.batch.asking import LineAsks
from tiergate.batch.ports import JobStore
from tiergate.batch.reading import Checked, Found, LineFinder, check_lines
from tiergate.batch.records import Claimed, Finished, Job, Problem
from tiergate.core import Clock
from tiergate.wire import custom_id_of

_PIECE_BYTES: Final = 1 << 20
_ENDED_AT_ONCE: Final = 1_000
_PROBLEMS_MAX: Final = 100
"""So many are told of by name; every one has its line in the output."""


@dataclass(slots=True)
class _Taken:
    """What has been read of a job's input so far."""

    lines: int
    digest: Any
    problems: list[Problem] = field(default_factory=list)
    models: set[str] = field(default_factory=set)

    def tell(self, problem: Problem) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(problem)


class InputReader:
    """Reads inputs. Text is checked in another thread: the event loop has calls to look after.

    `unpriced` says which of some models has no price, where a budget needs one.
    """

    def __init__(
        self, store: JobStore, asks: LineAsks, clock: Clock, unpriced: Callable[[set[str]], str | None]
    ) -> None:
        self._unpriced = unpriced
        self._store = store
        self._asks = asks
        self._clock = clock

    async def read(self, job: Job) -> dict[str, Any]:
        """Read all of a job's input, from the beginning; gives what is known of the job then.

        Whoever asks has begun the reading in the store, and ends it when what is given is written down.

        Raises:
            StorageUnavailable: not now; it is read again from the beginning.
        """
        taken = _Taken(0, sha256())
        for source, file_id in enumerate(await self._store.inputs(job.no)):
            await self._take(job, file_id, source, taken)
        await self._end_alike(job, taken, 0)
        return self._known(job, taken)

    async def grow(self, job: Job, files: Sequence[str]) -> dict[str, Any]:
        """Read more files; gives what is known of the job then. As `read`, within a reading.

        Raises:
            StorageUnavailable: not now.
        """
        taken = _Taken(job.lines, sha256(), list(job.problems))
        for known in await self._store.inputs(job.no):
            async for found in self._pieces(known):
                await asyncio.to_thread(_digest, taken.digest, found)
        begins = taken.lines
        for file_id in files:
            await self._take(job, file_id, await self._store.add_input(job.no, file_id), taken)
        await self._end_alike(job, taken, begins)
        return self._known(job, taken)

    def _known(self, job: Job, taken: _Taken) -> dict[str, Any]:
        now_ns = self._clock.wall_ns()
        known = {
            "lines": taken.lines,
            "sha256": taken.digest.digest(),
            "problems": tuple(taken.problems),
            "read_ns": now_ns,
        }
        refused = self._refused(taken)
        if refused is not None:
            known["problems"] = (refused, *taken.problems)
        is_refused = refused is not None or (job.is_strict and bool(taken.problems))
        return {**known, "failed_ns": now_ns} if is_refused else known

    def _refused(self, taken: _Taken) -> Problem | None:
        """Say why nothing of it can be worked; None: it can."""
        if not taken.lines:
            return Problem(code="empty_file", message="The input has no lines.")
        unpriced = self._unpriced(taken.models)
        return None if unpriced is None else Problem(code="price_unknown", message=unpriced)

    async def _take(self, job: Job, file_id: str, source: int, taken: _Taken) -> None:
        async for found in self._pieces(file_id):
            first = taken.lines + 1
            checked = await asyncio.to_thread(
                check_lines,
                found,
                first=first,
                source=source,
                url=job.endpoint,
                model=job.model,
                by_prefix=job.by_prefix,
            )
            await asyncio.to_thread(_digest, taken.digest, found)
            await self._store.add_lines(job.no, checked.lines)
            await self._end_bad(job, found, checked, taken, first)
            taken.lines += len(found)
            taken.models |= checked.models if job.budget_nanos is not None else set()

    async def _end_bad(
        self, job: Job, found: list[Found], checked: Checked, taken: _Taken, first: int
    ) -> None:
        """Give lines that ask nothing their end."""
        ends = []
        for n, error in checked.bad.items():
            text = found[n - first].text or b""
            message = f"Line {n}: {error}"
            taken.tell(Problem(code="invalid_line", message=message, line=n))
            ends.append(self._asks.bad(Claimed(n, text), message))
        await self._end(job, ends)

    async def _end(self, job: Job, ends: list[Finished]) -> None:
        """Write ends, many at a time."""
        for begins in range(0, len(ends), _ENDED_AT_ONCE):
            some = ends[begins : begins + _ENDED_AT_ONCE]
            spooled = await asyncio.gather(*(self._store.spool(job.no, one) for one in some))
            await self._store.finish(job.no, spooled)

    async def _end_alike(self, job: Job, taken: _Taken, begins: int) -> None:
        """Give lines their end that have the custom_id of an earlier one."""
        ends = []
        for earlier, n in await self._store.alike(job.no):
            text = await self._store.line_text(job.no, n)
            custom_id = custom_id_of(text)
            if n <= begins or custom_id != custom_id_of(await self._store.line_text(job.no, earlier)):
                continue
            message = f"Line {n}: the custom_id {(custom_id or '')[:100]!r} is that of line {earlier}, too."
            taken.tell(Problem(code="duplicate_custom_id", message=message, line=n))
            ends.append(self._asks.bad(Claimed(n, text), message))
        await self._end(job, ends)

    async def _pieces(self, file_id: str) -> AsyncIterator[list[Found]]:
        """Give the lines of a file, some at a time."""
        finder, at = LineFinder(), 0
        while data := await self._store.read_file(file_id, at, _PIECE_BYTES):
            at += len(data)
            found = list(finder.feed(data))
            if found:
                yield found
        found = list(finder.end())
        if found:
            yield found


def _digest(digest: Any, found: list[Found]) -> None:
    """Take lines into the digest of all, each with a line feed at its end."""
    for line in found:
        digest.update((line.text or b"").rstrip(b"\r") + b"\n")
