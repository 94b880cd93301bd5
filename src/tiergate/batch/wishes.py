"""What callers wish of a batch, and what they are shown of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tiergate.batch.records import Job, Progress
from tiergate.core import DataClass, TiergateError

CONCURRENCY: Final = 100
"""Lines asked at one time at most, where nobody says how many."""
CONCURRENCY_MAX: Final = 10_000
WINDOW_S: Final = 86_400
WINDOW_S_MAX: Final = 30 * 86_400


class NoSuchBatch(TiergateError):
    """There is no batch, or no file, of this id here."""

    code = "not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a batch is to be. `budget_nanos`: None: no ceiling of its own."""

    input_file: str
    more_files: tuple[str, ...] = ()
    """Whose lines follow those of the first one."""
    endpoint: str
    model: str | None = None
    data_class: DataClass = DataClass.ANY
    tag: str | None = None
    budget_nanos: int | None = None
    concurrency: int = CONCURRENCY
    is_strict: bool = False
    by_prefix: bool = False
    window_s: int = WINDOW_S
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A job as it is now. Amounts are nano-dollars; `held_nanos` None: without a budget nobody counts it."""

    job: Job
    errors: Mapping[str, int]
    spent_nanos: int
    held_nanos: int | None
    progress: Progress | None
    """None: nobody works on it now."""
