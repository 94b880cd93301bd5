"""Batches of a gateway process, asked for by hand: every field of every answer is looked at as it came."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, until

CHAT: Final = "/v1/chat/completions"
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_BOUNDARY: Final = "a-boundary-of-tests"

Rows = Iterable[Mapping[str, Any] | bytes] | bytes
"""Lines, those in bytes as they are; or a whole file."""


def row(custom_id: str, content: str = "hello", *, model: str = "m", **fields: Any) -> dict[str, Any]:
    """Give a line of the input."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def rows_of(count: int, *, first: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """Give lines with questions that differ, named `row-1` and so on."""
    return [row(f"row-{n}", f"question {n}", **fields) for n in range(first, first + count)]


def written(rows: Iterable[Mapping[str, Any] | bytes]) -> bytes:
    """Write lines; bytes are lines as they are."""
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in rows)


def form(data: bytes, *, disposition: str = 'filename="in.jsonl"', purpose: str | None = "batch") -> bytes:
    """Write the form of an upload."""
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
    file = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; {disposition}\r\n\r\n'
    first = b"" if purpose is None else head.encode()
    return first + file.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()


FORM: Final = ("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")


class Batches:
    """What one key sees of a gateway's batches; an empty key: none is sent."""

    def __init__(self, gateway: GatewayProcess, key: str = "") -> None:
        self._gateway = gateway
        self._headers = [bearer(key)] if key else []

    def ask(self, path: str, body: Any = None, *, method: str | None = None, headers: Any = ()) -> Answer:
        """Ask for anything below `/v1`, whatever comes back."""
        more = [*self._headers, *headers]
        return ask(self._gateway.port, f"/v1/{path}", body, method=method, headers=more, timeout_s=60)

    def get(self, path: str) -> Any:
        """Get a document."""
        return _good(self.ask(path))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Post a document and get one."""
        return _good(self.ask(path, dict(body or {})))

    def upload(self, rows: Rows, **how: Any) -> str:
        """Send a file; gives its id."""
        data = rows if isinstance(rows, bytes) else written(rows)
        return str(_good(self.ask("files", form(data, **how), headers=[FORM]))["id"])

    def begin(
        self, rows: Iterable[Mapping[str, Any] | bytes] | bytes, *, window: str = "24h", **ours: Any
    ) -> str:
        """Send lines and let them be worked; gives the batch's id."""
        wish = {"input_file_id": self.upload(rows), "endpoint": CHAT, "completion_window": window}
        return str(self.post("batches", {**wish, "tiergate": ours})["id"])

    def look(self, batch: str) -> Any:
        """Give a batch as it is now."""
        return self.get(f"batches/{batch}")

    def change(self, batch: str, **ours: Any) -> Any:
        """Give it another budget or concurrency, and let it go on."""
        return self.post(f"batches/{batch}", {"tiergate": ours})

    def until(self, batch: str, *states: str, timeout_s: float = 30.0) -> Any:
        """Wait until a batch is in one of these states of ours; else until it has ended.

        One that stands still does so when nothing is asked any more.
        """
        wanted = states or tuple(ENDED)

        def look() -> Any:
            found = self.look(batch)
            ours = found["tiergate"]
            is_still = ours["limit"] is None or ours["state"] not in ("stopped", "parked")
            return found if ours["state"] in wanted and is_still else None

        return until(look, timeout_s=timeout_s, what=f"{' or '.join(wanted)} of {batch}")

    def until_done(self, batch: str, count: int, *, timeout_s: float = 30.0) -> Any:
        """Wait until so many lines are answered."""

        def look() -> Any:
            found = self.look(batch)
            return found if found["request_counts"]["completed"] >= count else None

        return until(look, timeout_s=timeout_s, what=f"{count} answers of {batch}")

    def answers(self, batch: str) -> list[dict[str, Any]]:
        """Give the rows that are answered."""
        return self._rows(f"{batch.replace('batch_', 'files/file-')}-output/content")

    def errors(self, batch: str) -> list[dict[str, Any]]:
        """Give the rows that failed, or were not asked."""
        return self._rows(f"{batch.replace('batch_', 'files/file-')}-errors/content")

    def _rows(self, path: str) -> list[dict[str, Any]]:
        return rows_in(_whole(self.ask(path)).body)


def rows_in(data: bytes) -> list[dict[str, Any]]:
    """Read rows of JSON."""
    return [json.loads(line) for line in data.splitlines()]


def ids(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Give the names of rows, as they stand."""
    return [one["custom_id"] for one in rows]


def code_of(found: Mapping[str, Any]) -> str:
    """Give the error code of a row, whoever said it; empty: it is answered."""
    if found["error"] is not None:
        return str(found["error"]["code"])
    body = found["response"]["body"]
    return str(body["error"]["code"]) if "error" in body else ""


def check_rows(batches: Batches, batch: str, wanted: Sequence[str]) -> None:
    """See that each row of the input has one row of the output, both files in its order."""
    answered, failed = ids(batches.answers(batch)), ids(batches.errors(batch))
    place = {name: n for n, name in enumerate(wanted)}
    assert sorted([*answered, *failed], key=place.__getitem__) == list(wanted)
    assert answered == sorted(answered, key=place.__getitem__)
    assert failed == sorted(failed, key=place.__getitem__)


def _whole(answer: Answer) -> Answer:
    assert answer.status == 200 and answer.whole, answer.raw[:2000]
    return answer


def _good(answer: Answer) -> Any:
    return _whole(answer).json
