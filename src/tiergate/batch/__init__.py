"""Life of a batch: claims lines, sends each through `serve`, survives a crash at any point."""

from tiergate.batch.asking import LineAsks, Said
from tiergate.batch.batches import Batches
from tiergate.batch.estimate import Estimate, Range
from tiergate.batch.estimating import SAMPLE_MAX, Estimator
from tiergate.batch.ports import Engine, FileStore, JobStore, Lane, MakeEngine
from tiergate.batch.records import (
    Claimed,
    Crew,
    Erased,
    Finished,
    Halt,
    Job,
    JobState,
    NewLine,
    Output,
    Pause,
    Problem,
    Progress,
    Spooled,
    StoredFile,
    counts_of,
)
from tiergate.batch.runner import Runner
from tiergate.batch.shifts import Shifts
from tiergate.batch.wishes import (
    CONCURRENCY,
    CONCURRENCY_MAX,
    WINDOW_S,
    WINDOW_S_MAX,
    NoSuchBatch,
    View,
    Wish,
)

__all__ = [
    "CONCURRENCY",
    "CONCURRENCY_MAX",
    "SAMPLE_MAX",
    "WINDOW_S",
    "WINDOW_S_MAX",
    "Batches",
    "Claimed",
    "Crew",
    "Engine",
    "Erased",
    "Estimate",
    "Estimator",
    "FileStore",
    "Finished",
    "Halt",
    "Job",
    "JobState",
    "JobStore",
    "Lane",
    "LineAsks",
    "MakeEngine",
    "NewLine",
    "NoSuchBatch",
    "Output",
    "Pause",
    "Problem",
    "Progress",
    "Range",
    "Runner",
    "Said",
    "Shifts",
    "Spooled",
    "StoredFile",
    "View",
    "Wish",
    "counts_of",
]
