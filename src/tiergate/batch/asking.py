"""How a line of a job becomes a call, and the call's answer the line's output."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from tiergate.batch.records import Claimed, Finished, Job
from tiergate.core import (
    NOTHING,
    Call,
    CallClass,
    Caller,
    Cause,
    InvalidKey,
    JobLine,
    Notice,
    Reply,
    TiergateError,
    new_id,
    place_of,
)
from tiergate.ledger import LapsedLine, LineState
from tiergate.serve import Rooms, handle
from tiergate.wire import (
    BadLine,
    cost_number,
    custom_id_of,
    read_batch_line,
    with_cost,
    write_answered,
    write_unanswered,
)

_ENDPOINTS: Final = {"/v1/chat/completions": "chat"}
POISON: Final = "poison_line"
BAD: Final = "invalid_line"
CANCELLED: Final = "batch_cancelled"
EXPIRED: Final = "batch_expired"


class Said(NamedTuple):
    """An error as a caller over HTTP would be told it."""

    status: int
    code: str
    body: bytes


class LineBroke(TiergateError):
    """A line that our own code failed on."""


class LineAsks:
    """Asks lines through `handle`, as their job's key would: nothing that the key may not do.

    Args:
        rooms: that calls pass.
        caller_of: gives the caller of a key by its name, as it is now; None: it opens nothing any more.
        lapsed_of: gives what of a job's lines owners left in the ledger that died.
        say: tells an error in the words of the data plane.
        randomness: gives so many random bytes.
    """

    def __init__(
        self,
        rooms: Rooms,
        *,
        caller_of: Callable[[str], Caller | None],
        lapsed_of: Callable[[str], Awaitable[Sequence[LapsedLine]]],
        say: Callable[[TiergateError], Said],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._rooms = rooms
        self.caller_of = caller_of
        self._say = say
        self._randomness = randomness
        self._lapsed_of = lapsed_of
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._resent_of: dict[tuple[str, int], str] = {}
        """Of lines that a dead owner had asked: the call of then, by the job's id and the line's number."""

    async def ask(self, job: Job, line: Claimed) -> Finished:
        """Ask a line; see `Asks`."""
        try:
            asked = read_batch_line(line.text, url=job.endpoint, model=job.model)
        except BadLine as error:
            return self._bad(line, error)
        resent_of = await self._resent(job, line)
        call = self._call(job, line, asked.question.body, asked.question.model, resent_of)
        try:
            reply = await handle(self._rooms, call)
            assert isinstance(reply, Reply)
            finished = _answered(line, asked.custom_id, reply)
        except TiergateError:
            raise
        except Exception as error:
            message = f"Line {line.n} of {job.id} could not be asked ({place_of(error)})."
            self._rooms.emit(Notice(word="bug", message=message, severe=True))
            raise LineBroke("The gateway failed on this line. Its log says where.") from error
        self._resent_of.pop((job.id, line.n), None)
        return finished

    async def _resent(self, job: Job, line: Claimed) -> str | None:
        """Give the call of an owner that died while it asked a line; None: there is none."""
        found = self._resent_of.get((job.id, line.n))
        if found is None and line.interrupted:
            # It may have died a moment ago, on another machine. Those who look together look once.
            looking = self._looking.get(job.id)
            if looking is None:
                looking = self._looking[job.id] = asyncio.create_task(self.look_back(job))
            await asyncio.shield(looking)
            found = self._resent_of.get((job.id, line.n))
        return found

    async def look_back(self, job: Job) -> None:
        """Look which calls of a job's lines owners left that died.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        try:
            for one in await self._lapsed_of(job.id):
                self._resent_of[job.id, one.line] = one.call_id
        finally:
            self._looking.pop(job.id, None)

    def failed(self, job: Job, line: Claimed, error: TiergateError) -> Finished:
        """Give the end of a line that was asked in vain; see `Asks`."""
        said = self._say(error)
        output = write_answered(
            custom_id_of(line.text) or "",
            call_id=self._new_id(),
            status=said.status,
            body=said.body,
            told={"n": line.n, "tries": line.tries + 1},
        )
        return Finished(n=line.n, state=LineState.FAILED, output=output, error_code=said.code)

    def poisoned(self, job: Job, line: Claimed) -> Finished:
        """Give the end of a line that its owners died with; see `Asks`."""
        message = f"The gateway died {line.interrupted} times while it had this line; it is not asked again."
        return self._unanswered(line, LineState.FAILED, POISON, message)

    def unasked(self, job: Job, line: Claimed) -> Finished:
        """Give the end of a line that its job's own end came before; see `Asks`."""
        if job.cancel_ns is not None:
            return self._unanswered(
                line, LineState.CANCELLED, CANCELLED, "The batch was cancelled before this line was asked."
            )
        return self._unanswered(
            line, LineState.CANCELLED, EXPIRED, "The batch expired before this line was asked."
        )

    def bad(self, line: Claimed, message: str) -> Finished:
        """Give the end of a line that asks nothing."""
        return self._unanswered(line, LineState.FAILED, BAD, message)

    def _bad(self, line: Claimed, error: BadLine) -> Finished:
        return self.bad(line, str(error))

    def _unanswered(self, line: Claimed, state: LineState, code: str, message: str) -> Finished:
        output = write_unanswered(
            custom_id_of(line.text),
            request_id=self._new_id(),
            code=code,
            message=message,
            told={"n": line.n},
        )
        return Finished(n=line.n, state=state, output=output, error_code=code)

    def _call(self, job: Job, line: Claimed, body: Any, model: str, resent_of: str | None) -> Call:
        caller = self.caller_of(job.key)
        if caller is None:
            raise InvalidKey(f"The key {job.key!r}, which made this batch, opens nothing any more.")
        clock = self._rooms.clock
        wall_ns = clock.wall_ns()
        left_s = (job.deadline_ns - wall_ns) / 1e9
        return Call(
            id=new_id(wall_ns, self._randomness(10)),
            caller=caller,
            endpoint=_ENDPOINTS[job.endpoint],
            asked_model=model,
            body=body,
            prompt_bytes=len(line.text),
            streamed=False,
            received_ns=wall_ns,
            received=clock.monotonic(),
            cause=Cause.BATCH,
            call_class=CallClass.BATCH,
            data_class=job.data_class.stricter(caller.data_class),
            time_limit_s=max(1.0, left_s),
            tag=job.tag,
            line=JobLine(job=job.id, n=line.n, resent_of=resent_of),
        )

    def _new_id(self) -> str:
        return new_id(self._rooms.clock.wall_ns(), self._randomness(10))


def _answered(line: Claimed, custom_id: str, reply: Reply) -> Finished:
    origin, cash = reply.origin, reply.cash_nanos
    told = {
        "n": line.n,
        "target": origin.target.name,
        "tier": reply.tier,
        "attempts": origin.attempts,
        "cost_usd": cost_number(cash),
    }
    is_given = origin.attempts == 0
    used = NOTHING if is_given else reply.usage
    body = with_cost(reply.data, cash) if reply.with_cost is None else reply.with_cost
    return Finished(
        n=line.n,
        state=LineState.DONE,
        output=write_answered(custom_id, call_id=origin.call_id, status=200, body=body, told=told),
        call_id=origin.call_id,
        attempt=origin.attempts,
        input_tokens=used.input_tokens,
        cached_tokens=used.cache_read,
        output_tokens=used.output_tokens,
        cash_nanos=cash or 0,
        is_hit=is_given,
    )
