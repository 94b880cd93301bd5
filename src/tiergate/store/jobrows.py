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
_ADDED: Final = (
    *("id", "tenant", "key", "tag", "endpoint", "model", "input_file", "budget_nanos", "concurrency"),
    *("is_strict", "by_prefix", "window_s", "created_ns", "deadline_ns"),
)
_DECIDED: Final = (
    *("sha256", "lines", "budget_nanos", "concurrency", "deadline_ns", "read_ns", "cancel_ns"),
    *("expired_ns", "failed_ns", "ended_ns", "problems"),
)
_CHANGED: Final = frozenset({*_DECIDED, "pause"})
"""Fields of a job that are decided about again and again."""
_COLUMNS: Final = (*_DECIDED, "halt", "halt_word", "halt_message", "halt_until_ns")
_metadata: Final = msgspec.json.Decoder(dict[str, str]).decode
_problems: Final = msgspec.json.Decoder(tuple[Problem, ...]).decode


def job_facts(job: Job) -> dict[str, Any]:
    """Give the values of `add_job`."""
    facts = {name: getattr(job, name) for name in _ADDED}
    return {
        **facts,
        "data_class": job.data_class.value,
        "metadata": msgspec.json.encode(job.metadata).decode(),
    }


def change_facts(what: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values of `change_job`: what is given, and of each column whether it is."""
    given: dict[str, Any] = {}
    for name, value in what.items():
        assert name in _CHANGED, name
        if name == "pause":
            given |= _pause_facts(value)
        elif name == "problems":
            given["problems"] = msgspec.json.encode(value).decode()
        else:
            given[name] = value
    facts = {column: given.get(column) for column in _COLUMNS}
    return {**facts, **{f"has_{column}": column in given for column in _COLUMNS}}


def _pause_facts(pause: Pause | None) -> dict[str, Any]:
    return {
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
