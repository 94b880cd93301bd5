"""The endpoints of files and batches: `/v1/files…` and `/v1/batches…`, to each caller its own."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from tiergate.batch import CONCURRENCY, Batches, Job, NoSuchBatch, StoredFile
from tiergate.core import Caller, InvalidRequest, new_id
from tiergate.web.batches import (
    batch_object,
    budget_nanos_of,
    change_of,
    concurrency_of,
    error_id,
    estimate_object,
    files_of,
    output_id,
    wish_of,
)
from tiergate.web.statuses import Unroutable
from tiergate.web.uploads import FormReader
from tiergate.web.visit import Headers, Visit
from tiergate.wire import dumps, read_object

FILES: Final = "/v1/files"
BATCHES: Final = "/v1/batches"
_PURPOSES: Final = ("batch",)
_LIMIT_MAX: Final = 100
_FILES_MAX: Final = 10_000
"""Of one tenant; more have to be deleted before."""
_PIECE_BYTES: Final = 1 << 20
_SAMPLE_BYTES_MAX: Final = 32 << 20
_LINES_MAX: Final = 10**12
_OUTPUTS: Final = ("-output", "-errors")
_ESTIMATED: Final = ("bodies", "lines", "concurrency", "budget_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePolicy:
    """How much may be uploaded, and how long its sender may be silent."""

    bytes_max: int = 1 << 30
    idle_s: float = 60.0


class Content(NamedTuple):
    """A file on its way to a caller."""

    headers: Headers
    pieces: AsyncIterator[bytes]


class _Asked(NamedTuple):
    """A request, by the parts of its path."""

    visit: Visit
    caller: Caller
    wall_ns: int
    id: str
    act: str
    query: Mapping[str, str]


class BatchPlane:
    """Answers for files and batches.

    Args:
        batches: all of the house.
        policy: of uploads.
        randomness: gives so many random bytes.
    """

    def __init__(self, batches: Batches, *, policy: FilePolicy, randomness: Callable[[int], bytes]) -> None:
        self.policy = policy
        self._batches = batches
        self._randomness = randomness

    async def answer(self, visit: Visit, caller: Caller, wall_ns: int) -> bytes | Content:
        """Answer a request: a JSON document, or a file."""
        root, (identity, act) = _parts(visit.path)
        methods = _ROUTES.get((root, _shape(root, identity, act)))
        if methods is None:
            raise Unroutable(f"There is no such endpoint under {root}.", status=404)
        endpoint = methods.get(visit.method)
        if endpoint is None:
            allow = ", ".join(methods)
            raise Unroutable(f"{visit.path} takes {allow} only.", status=405, allow=allow)
        query = {name: values[-1] for name, values in parse_qs(visit.query.decode("latin-1")).items()}
        answer = await endpoint(self, _Asked(visit, caller, wall_ns, identity, act, query))
        return answer if isinstance(answer, Content) else dumps(answer)

    # Files.

    async def upload(self, asked: _Asked) -> dict[str, Any]:
        """Take a file."""
        store, caller = self._batches.store, asked.caller
        if len(await store.files(caller.partition, limit=_FILES_MAX)) >= _FILES_MAX:
            raise InvalidRequest(f"There are {_FILES_MAX} files already; delete some that are done with.")
        file = StoredFile(
            id=f"file-{new_id(asked.wall_ns, self._randomness(10))}",
            tenant=caller.partition,
            name="",
            purpose=_PURPOSES[0],
            created_ns=asked.wall_ns,
        )
        await store.begin_file(file)
        try:
            upload = await self._receive(asked.visit, file)
        except BaseException:
            await store.drop_file(caller.partition, file.id, asked.wall_ns)
            raise
        await store.end_file(file.id, upload.bytes, upload.name or "")
        found = await store.file(caller.partition, file.id)
        assert found is not None
        return file_object(found)

    async def _receive(self, visit: Visit, file: StoredFile) -> Any:
        async def write(data: bytes) -> None:
            await self._batches.store.append_file(file.id, data)

        reader = FormReader(visit.header(b"content-type") or "", write)
        policy = self.policy
        upload = await reader.read(visit.body_pieces(bytes_max=policy.bytes_max, idle_s=policy.idle_s))
        if upload.name is None:
            raise InvalidRequest("The form has no file; send it in the part `file`.", param="file")
        if upload.fields.get("purpose") not in _PURPOSES:
            raise InvalidRequest(f"`purpose` must be {' or '.join(_PURPOSES)}.", param="purpose")
        if not upload.bytes:
            raise InvalidRequest("The file is empty.", param="file")
        return upload

    async def files(self, asked: _Asked) -> dict[str, Any]:
        """List files, newest first."""
        limit = _limit(asked.query)
        found = await self._batches.store.files(
            asked.caller.partition,
            after=asked.query.get("after"),
            limit=limit + 1,
            purpose=asked.query.get("purpose"),
        )
        return _page([file_object(one) for one in found], limit)

    async def file(self, asked: _Asked) -> dict[str, Any]:
        """Show a file."""
        return file_object(await self._file(asked))

    async def drop(self, asked: _Asked) -> dict[str, Any]:
        """Delete a file."""
        await self._batches.file(asked.caller, asked.id)
        await self._batches.store.drop_file(asked.caller.partition, asked.id, asked.wall_ns)
        return {"id": asked.id, "object": "file", "deleted": True}

    async def content(self, asked: _Asked) -> Content:
        """Give a file; of a batch, what is there by now, in the order of its input."""
        file = await self._file(asked)
        headers = (
            (b"content-type", b"application/octet-stream"),
            (b"content-disposition", b'attachment; filename="%b.jsonl"' % file.id.encode()),
            (b"x-content-type-options", b"nosniff"),
        )
        job = await self._job_of(asked)
        after = _number(asked.query, "after_line")
        pieces = self._written(asked.id) if job is None else self._outputs(job, asked, after)
        return Content(headers, pieces)

    async def _file(self, asked: _Asked) -> StoredFile:
        job = await self._job_of(asked)
        if job is None:
            return await self._batches.file(asked.caller, asked.id)
        is_output = asked.id == output_id(job)
        size = await self._batches.store.output_bytes(job.no, done=is_output, failed=not is_output)
        return StoredFile(
            id=asked.id,
            tenant=job.tenant,
            name=f"{job.id}_{'output' if is_output else 'error'}.jsonl",
            purpose="batch_output",
            created_ns=job.read_ns or job.created_ns,
            bytes=size,
        )

    async def _job_of(self, asked: _Asked) -> Job | None:
        """Give the batch whose output or errors are asked for; None: another file is."""
        for ending in _OUTPUTS:
            if asked.id.endswith(ending):
                job_id = f"batch_{asked.id.removeprefix('file-').removesuffix(ending)}"
                with suppress(NoSuchBatch):
                    job = (await self._batches.view(asked.caller, job_id)).job
                    if asked.id in (output_id(job), error_id(job)):
                        return job
                raise NoSuchBatch(f"There is no file {asked.id[:100]!r} here.")
        return None

    async def _written(self, file_id: str) -> AsyncIterator[bytes]:
        at = 0
        while data := await self._batches.store.read_file(file_id, at, _PIECE_BYTES):
            at += len(data)
            yield data

    async def _outputs(self, job: Job, asked: _Asked, after: int) -> AsyncIterator[bytes]:
        is_output = asked.id == output_id(job)
        is_all = asked.query.get("all") == "true"
        while found := await self._batches.store.outputs(
            job.no, done=is_output or is_all, failed=not is_output or is_all, after=after
        ):
            after = found[-1].n
            yield b"".join([one.line for one in found])

    # Batches.

    async def create(self, asked: _Asked) -> dict[str, Any]:
        """Take a batch."""
        return batch_object(await self._batches.create(asked.caller, wish_of(await _any_body(asked.visit))))

    async def estimate(self, asked: _Asked) -> dict[str, Any]:
        """Say what a batch will cost and take, from some of its lines' bodies; nobody is asked anything."""
        body = await _body(asked.visit, *_ESTIMATED, bytes_max=_SAMPLE_BYTES_MAX)
        bodies, lines = body.get("bodies"), body.get("lines")
        if not (isinstance(bodies, list) and bodies and all(isinstance(one, dict) for one in bodies)):
            raise InvalidRequest("`bodies` must be a list of bodies of lines.", param="bodies")
        if type(lines) is not int or not 1 <= lines <= _LINES_MAX:
            raise InvalidRequest("`lines` must be the number of lines.", param="lines")
        found = await self._batches.estimator.estimate(
            asked.caller,
            bodies,
            lines=lines,
            concurrency=concurrency_of(body) or CONCURRENCY,
            budget_nanos=budget_nanos_of(body),
        )
        return estimate_object(found)

    async def listed(self, asked: _Asked) -> dict[str, Any]:
        """List batches, newest first."""
        limit = _limit(asked.query)
        found = await self._batches.listed(asked.caller, after=asked.query.get("after"), limit=limit + 1)
        return _page([batch_object(job) for job in found], limit)

    async def show(self, asked: _Asked) -> dict[str, Any]:
        """Show a batch as it is now."""
        view = await self._batches.view(asked.caller, asked.id)
        return batch_object(view.job, view)

    async def change(self, asked: _Asked) -> dict[str, Any]:
        """Change a batch's budget or concurrency; one that stands still goes on."""
        await self._batches.change(asked.caller, asked.id, **change_of(await _any_body(asked.visit)))
        return await self.show(asked)

    async def cancel(self, asked: _Asked) -> dict[str, Any]:
        """End a batch, and keep what is finished."""
        await _body(asked.visit)
        await self._batches.cancel(asked.caller, asked.id)
        return await self.show(asked)

    async def retry(self, asked: _Asked) -> dict[str, Any]:
        """Ask failed lines again."""
        body = await _body(asked.visit, "codes")
        codes = body.get("codes")
        if codes is not None and not (isinstance(codes, list) and all(isinstance(one, str) for one in codes)):
            raise InvalidRequest("`codes` must be a list of error codes.", param="codes")
        count = await self._batches.retry(asked.caller, asked.id, codes)
        return {**(await self.show(asked)), "retried": count}

    async def extend(self, asked: _Asked) -> dict[str, Any]:
        """Let a batch answer the lines of another file, too."""
        body = await _body(asked.visit, "input_file_ids")
        await self._batches.extend(asked.caller, asked.id, files_of(body, "input_file_ids"))
        return await self.show(asked)


def is_batch_path(path: str) -> bool:
    """Tell whether a path is one of files or batches."""
    return any(path == root or path.startswith(f"{root}/") for root in (FILES, BATCHES))


def file_object(file: StoredFile) -> dict[str, Any]:
    """Say what is known of a file, as OpenAI's API does."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_ns // 1_000_000_000,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


_ROUTES: Final[dict[tuple[str, str], dict[str, Callable[[BatchPlane, _Asked], Any]]]] = {
    (FILES, ""): {"GET": BatchPlane.files, "POST": BatchPlane.upload},
    (FILES, "id"): {"GET": BatchPlane.file, "DELETE": BatchPlane.drop},
    (FILES, "content"): {"GET": BatchPlane.content},
    (BATCHES, ""): {"GET": BatchPlane.listed, "POST": BatchPlane.create},
    (BATCHES, "estimate"): {"POST": BatchPlane.estimate},
    (BATCHES, "id"): {"GET": BatchPlane.show, "POST": BatchPlane.change},
    (BATCHES, "cancel"): {"POST": BatchPlane.cancel},
    (BATCHES, "retry"): {"POST": BatchPlane.retry},
    (BATCHES, "lines"): {"POST": BatchPlane.extend},
}


def _parts(path: str) -> tuple[str, tuple[str, str]]:
    root = FILES if path == FILES or path.startswith(f"{FILES}/") else BATCHES
    identity, _, act = path.removeprefix(root).removeprefix("/").partition("/")
    return root, (identity, act)


def _shape(root: str, identity: str, act: str) -> str:
    if not identity:
        return "" if not act else "?"
    if (root, identity, act) == (BATCHES, "estimate", ""):
        return "estimate"
    return act or "id"


def _page(found: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    page = found[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > limit,
    }


def _limit(query: Mapping[str, str]) -> int:
    given = query.get("limit", "20")
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= 10_000):
        raise InvalidRequest(f"`limit` must be a whole number from 1 to {_LIMIT_MAX}.", param="limit")
    return min(int(given), _LIMIT_MAX)


def _number(query: Mapping[str, str], name: str) -> int:
    given = query.get(name, "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 15):
        raise InvalidRequest(f"`{name}` must be a whole number.", param=name)
    return int(given)


async def _any_body(visit: Visit, *, bytes_max: int = _PIECE_BYTES) -> dict[str, Any]:
    data = await visit.read_body(bytes_max=bytes_max, timeout_s=60.0)
    return read_object(data) if data.strip() else {}


async def _body(visit: Visit, *known: str, bytes_max: int = _PIECE_BYTES) -> dict[str, Any]:
    body = await _any_body(visit, bytes_max=bytes_max)
    unknown = sorted(set(body) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise InvalidRequest(
            f"`{unknown[0][:50]}` is no field of this. Known: {listed}.", param=unknown[0][:50]
        )
    return body
