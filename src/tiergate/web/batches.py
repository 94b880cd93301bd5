"""Batches as OpenAI's API has them: what a caller may wish, and what is said of a batch.

What that API has no word for stands under `tiergate`: budget, what is spent, why a batch stands still.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tiergate.batch import (
    CONCURRENCY,
    CONCURRENCY_MAX,
    WINDOW_S,
    WINDOW_S_MAX,
    Estimate,
    Job,
    JobState,
    Range,
    View,
    Wish,
)
from tiergate.core import DataClass, InvalidRequest, nanos_to_usd, usd_to_nanos
from tiergate.web.moments import time_text

_STATUS: Final = {
    JobState.READING: "validating",
    JobState.RUNNING: "in_progress",
    JobState.PARKED: "in_progress",
    JobState.STOPPED: "in_progress",
    JobState.CANCELLING: "cancelling",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
    JobState.CANCELLED: "cancelled",
}
_OURS: Final = frozenset(
    {"budget_usd", "concurrency", "strict", "by_prefix", "model", "tag", "data", "more_input_file_ids"}
)
_KNOWN: Final = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "tiergate"})
_IGNORED: Final = frozenset({"output_expires_after"})
_UNITS_S: Final = {"m": 60, "h": 3_600, "d": 86_400}
_BUDGET_USD_MAX: Final = 1_000_000_000
_METADATA_MAX: Final = 16
_PROJECTED_FROM: Final = 20
_EIGHT_OF_TEN: Final = 1.2816
"""So many standard deviations lie on either side."""
_MORE_FILES_MAX: Final = 5_000
_TAG_CHARS: Final = 128


def output_id(job: Job) -> str:
    """Give the id of the file with the answers of a batch."""
    return f"file-{job.id.removeprefix('batch_')}-output"


def error_id(job: Job) -> str:
    """Give the id of the file with the errors of a batch."""
    return f"file-{job.id.removeprefix('batch_')}-errors"


def batch_object(job: Job, view: View | None = None) -> dict[str, Any]:
    """Say what is known of a batch; with a view, what it is doing now."""
    state = job.state
    is_read = job.read_ns is not None
    ended = dict.fromkeys(("completed_at", "failed_at", "expired_at", "cancelled_at"))
    if job.failed_ns is not None:
        ended["failed_at"] = _seconds(job.failed_ns)
    elif job.ended_ns is not None:
        ended[f"{state.value}_at"] = _seconds(job.ended_ns)
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.endpoint,
        "model": job.model,
        "errors": _errors(job),
        "input_file_id": job.input_file,
        "completion_window": _window_text(job.window_s),
        "status": _STATUS[state],
        # They can be read while it runs: what is there by then, in the order of the input.
        "output_file_id": output_id(job) if is_read and job.failed_ns is None else None,
        "error_file_id": error_id(job) if job.failed or job.cancelled else None,
        "created_at": _seconds(job.created_ns),
        "in_progress_at": _seconds(job.read_ns),
        "expires_at": _seconds(job.deadline_ns),
        "finalizing_at": None,
        **ended,
        "cancelling_at": _seconds(job.cancel_ns),
        "request_counts": {"total": job.lines, "completed": job.done, "failed": job.failed},
        "usage": {
            "input_tokens": job.input_tokens,
            "input_tokens_details": {"cached_tokens": job.cached_tokens},
            "output_tokens": job.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": job.input_tokens + job.output_tokens,
        },
        "metadata": dict(job.metadata) or None,
        "tiergate": {**_ours(job), **({} if view is None else _now(view))},
    }


def wish_of(body: Mapping[str, Any]) -> Wish:
    """Read what a batch is to be.

    Raises:
        InvalidRequest: it cannot be; `param` names the field.
    """
    unknown = sorted(set(body) - _KNOWN - _IGNORED)
    if unknown:
        raise InvalidRequest(f"`{unknown[0][:50]}` is no field of a batch.", param=unknown[0][:50])
    ours = body.get("tiergate", {})
    if not isinstance(ours, dict):
        raise InvalidRequest("`tiergate` must be an object.", param="tiergate")
    _refuse_unknown(ours, _OURS)
    return Wish(
        input_file=_text(body, "input_file_id"),
        more_files=files_of(ours, "more_input_file_ids"),
        endpoint=_text(body, "endpoint"),
        window_s=_window_s(body.get("completion_window", "24h")),
        metadata=_metadata(body.get("metadata")),
        model=None if ours.get("model") is None else _text(ours, "model"),
        tag=_tag(ours.get("tag")),
        data_class=_data_class(ours.get("data")),
        budget_nanos=budget_nanos_of(ours),
        concurrency=concurrency_of(ours) or CONCURRENCY,
        is_strict=_truth(ours, "strict"),
        by_prefix=_truth(ours, "by_prefix"),
    )


def files_of(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Read a list of ids of files; none where the field is not there.

    Raises:
        InvalidRequest: it is no such list.
    """
    given = body.get(name, [])
    is_list = isinstance(given, list) and len(given) <= _MORE_FILES_MAX
    if not is_list or not all(isinstance(one, str) for one in given):
        raise InvalidRequest(
            f"`{name}` must be a list of at most {_MORE_FILES_MAX} ids of files.", param=name
        )
    return tuple(given)


def change_of(body: Mapping[str, Any]) -> dict[str, int | None]:
    """Read what a batch is to be changed to.

    Raises:
        InvalidRequest: it cannot be; `param` names the field.
    """
    ours = body.get("tiergate")
    if not isinstance(ours, dict) or len(body) != 1:
        raise InvalidRequest(
            "Send an object `tiergate` with `budget_usd` or `concurrency`.", param="tiergate"
        )
    _refuse_unknown(ours, frozenset({"budget_usd", "concurrency"}))
    return {"budget_nanos": budget_nanos_of(ours), "concurrency": concurrency_of(ours)}


def estimate_object(found: Estimate) -> dict[str, Any]:
    """Say what a batch will cost and take."""
    return {
        "object": "batch_estimate",
        "lines": found.lines,
        "sampled": found.sampled,
        "answers_known": found.answers_known,
        "input_tokens": found.input_tokens,
        "output_tokens": _range_object(found.output_tokens, round),
        "cost_usd": None if found.cost_nanos is None else _range_object(found.cost_nanos, _usd),
        "most_usd": None if found.most_nanos is None else nanos_to_usd(found.most_nanos),
        "seconds": None if found.seconds is None else _range_object(found.seconds, lambda one: round(one, 1)),
        "chance_within_budget": found.chance,
    }


def _range_object(found: Range, written: Callable[[float], Any]) -> dict[str, Any]:
    return {name: written(getattr(found, name)) for name in ("low", "middle", "high")}


def _usd(nanos: float) -> Any:
    return nanos_to_usd(round(nanos))


def budget_nanos_of(ours: Mapping[str, Any]) -> int | None:
    """Read a budget; None: there is none.

    Raises:
        InvalidRequest: it is no amount.
    """
    given = ours.get("budget_usd")
    if given is None:
        return None
    try:
        usd = Decimal(str(given)) if type(given) in (int, float, str) else None
    except InvalidOperation:
        usd = None
    if usd is None or not usd.is_finite() or not 0 < usd <= _BUDGET_USD_MAX:
        raise InvalidRequest("`budget_usd` must be an amount of USD above 0.", param="budget_usd")
    return usd_to_nanos(usd)


def concurrency_of(ours: Mapping[str, Any]) -> int | None:
    """Read a concurrency; None: there is none.

    Raises:
        InvalidRequest: it is no such number.
    """
    given = ours.get("concurrency")
    if given is None:
        return None
    if type(given) is not int or not 1 <= given <= CONCURRENCY_MAX:
        raise InvalidRequest(
            f"`concurrency` must be a whole number from 1 to {CONCURRENCY_MAX}.", param="concurrency"
        )
    return given


def _ours(job: Job) -> dict[str, Any]:
    pause = job.pause
    return {
        "state": job.state.value,
        "reason": None if pause is None else pause.word,
        "message": None if pause is None else pause.message,
        "until": None if pause is None or pause.until_ns is None else time_text(pause.until_ns),
        "lines": job.lines,
        "sha256": None if job.sha256 is None else job.sha256.hex(),
        "cancelled": job.cancelled,
        "interrupted": job.interrupted,
        "cache_hits": job.hits,
        "budget_usd": None if job.budget_nanos is None else nanos_to_usd(job.budget_nanos),
        "concurrency": job.concurrency,
        "strict": job.is_strict,
        "by_prefix": job.by_prefix,
        "tag": job.tag,
        "data": job.data_class.value,
        "key": job.key,
        "answers_usd": nanos_to_usd(job.cash_nanos),
        "projected_usd": _projected(job),
        "worked_s": job.worked_ms / 1e3,
    }


def _projected(job: Job) -> dict[str, Any] | None:
    """Tell what all answers together will cost, from those that are there; eight times of ten in between."""
    if job.done < _PROJECTED_FROM:
        return None
    mean = job.cash_nanos / 1e9 / job.done
    spread = max(0.0, job.cash_squares / job.done - mean**2) ** 0.5
    left = job.left
    middle = job.cash_nanos / 1e9 + left * mean
    off = _EIGHT_OF_TEN * spread * (left + left**2 / job.done) ** 0.5
    return {
        "low": round(max(job.cash_nanos / 1e9, middle - off), 6),
        "middle": round(middle, 6),
        "high": round(middle + off, 6),
    }


def _now(view: View) -> dict[str, Any]:
    progress = view.progress
    return {
        "spent_usd": nanos_to_usd(view.spent_nanos),
        "held_usd": None if view.held_nanos is None else nanos_to_usd(view.held_nanos),
        "errors": dict(view.errors),
        "in_flight": 0 if progress is None else progress.in_flight,
        "limit": None if progress is None else progress.limit,
        "limited_by": None if progress is None else progress.why,
        "asked_again": {} if progress is None else dict(progress.again),
    }


def _errors(job: Job) -> dict[str, Any] | None:
    if not job.problems:
        return None
    return {
        "object": "list",
        "data": [
            {"code": one.code, "message": one.message, "line": one.line, "param": None}
            for one in job.problems
        ],
    }


def _seconds(ns: int | None) -> int | None:
    return None if ns is None else ns // 1_000_000_000


def _window_text(window_s: int) -> str:
    return f"{window_s // 3_600}h" if window_s % 3_600 == 0 else f"{window_s // 60}m"


def _window_s(given: Any) -> int:
    amount, unit = (given[:-1], given[-1:]) if isinstance(given, str) else ("", "")
    seconds = int(amount) * _UNITS_S.get(unit, 0) if amount.isascii() and amount.isdigit() else 0
    if not 60 <= seconds <= WINDOW_S_MAX:
        most = WINDOW_S_MAX // WINDOW_S
        raise InvalidRequest(
            f"`completion_window` must be a time such as 24h, 90m or 7d, at most {most}d.",
            param="completion_window",
        )
    return seconds


def _metadata(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    is_fine = isinstance(given, dict) and len(given) <= _METADATA_MAX
    if not is_fine or not all(isinstance(value, str) for value in given.values()):
        raise InvalidRequest(
            f"`metadata` must be an object of at most {_METADATA_MAX} texts.", param="metadata"
        )
    if any(len(name) > 64 or len(value) > 512 for name, value in given.items()):
        raise InvalidRequest("A name in `metadata` has at most 64 characters, a text 512.", param="metadata")
    return dict(given)


def _text(body: Mapping[str, Any], name: str) -> str:
    given = body.get(name)
    if not isinstance(given, str) or not 1 <= len(given) <= 256:
        raise InvalidRequest(f"`{name}` must be a text.", param=name)
    return given


def _truth(body: Mapping[str, Any], name: str) -> bool:
    given = body.get(name, False)
    if not isinstance(given, bool):
        raise InvalidRequest(f"`{name}` must be true or false.", param=name)
    return given


def _tag(given: Any) -> str | None:
    if given is None:
        return None
    is_text = isinstance(given, str) and 1 <= len(given) <= _TAG_CHARS
    if not is_text or not (given.isascii() and given.isprintable()):
        raise InvalidRequest(f"`tag` must be 1 to {_TAG_CHARS} printable ASCII characters.", param="tag")
    return str(given)


def _data_class(given: Any) -> DataClass:
    try:
        return DataClass.ANY if given is None else DataClass(given)
    except ValueError as error:
        raise InvalidRequest("`data` must be any or private-only.", param="data") from error


def _refuse_unknown(ours: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(ours) - known)
    if unknown:
        listed = ", ".join(sorted(known))
        raise InvalidRequest(
            f"`{unknown[0][:50]}` is nothing that can be wished here. Known: {listed}.", param=unknown[0][:50]
        )
