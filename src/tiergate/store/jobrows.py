"""Rows of jobs and files, there and back."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tiergate.batch import Halt, Job, Pause, Problem, StoredFile
from tiergate.core import DataClass

_PLAIN: Final = (
    *("no", "id", "tenant", "key", "tag", "endpoint", "model", "input_file", "sha256", "lines"),
    *("budget_nanos", "concurrency", "window_s", "created_ns", "deadline_ns", "read_ns", "cancel_ns"),
    *("expired_ns", "failed_ns", "ended_ns", "worked_ms"),
)
_COUNTED: Final = (
    *("done", "failed", "cancelled", "input_tokens", "cached_tokens", "output_tokens", "cash_nanos"),
    *("cash_squares", "hits", "interrupted"),
)
_metadata: Final = msgspec.json.Decoder(dict[str, str]).decode
_problems: Final = msgspec.json.Decoder(tuple[Problem, ...]).decode


def job_facts(job: Job) -> dict[str, Any]:
    """Give the values of `add_job` and `save_job`."""
    pause = job.pause
    return {
        **{name: getattr(job, name) for name in _PLAIN},
        "data_class": job.data_class.value,
        "is_strict": job.is_strict,
        "by_prefix": job.by_prefix,
        "metadata": msgspec.json.encode(job.metadata).decode(),
        "problems": msgspec.json.encode(job.problems).decode(),
        "halt": None if pause is None else pause.halt.value,
        "halt_word": None if pause is None else pause.word,
        "halt_message": None if pause is None else pause.message,
        "halt_until_ns": None if pause is None else pause.until_ns,
    }


def job_of(row: Mapping[str, Any]) -> Job:
    """Read a job back."""
    pause = row["halt"] and Pause(
        halt=Halt(row["halt"]),
        word=row["halt_word"],
        message=row["halt_message"],
        until_ns=row["halt_until_ns"],
    )
    return Job(
        **{name: row[name] for name in (*_PLAIN, *_COUNTED)},
        data_class=DataClass(row["data_class"]),
        is_strict=bool(row["is_strict"]),
        by_prefix=bool(row["by_prefix"]),
        metadata=_metadata(row["metadata"]),
        problems=_problems(row["problems"]),
        pause=pause,
    )


def file_of(row: tuple[Any, ...]) -> StoredFile:
    """Read a file back."""
    file_id, tenant, name, purpose, size, created_ns = row
    return StoredFile(
        id=file_id, tenant=tenant, name=name, purpose=purpose, bytes=size, created_ns=created_ns
    )
