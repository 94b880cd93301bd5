"""Life of a batch: claims lines, sends each through `serve`, survives a crash at any point."""

from tiergate.batch.asking import LineAsks, Said
from tiergate.batch.batches import (
    CONCURRENCY,
    CONCURRENCY_MAX,
    WINDOW_S,
    WINDOW_S_MAX,
    Batches,
    NoSuchBatch,
    View,
    Wish,
)
from tiergate.batch.estimate import Estimate, Range
from tiergate.batch.estimating import SAMPLE_MAX, Estimator
from tiergate.batch.ports import FileStore, JobStore
from tiergate.batch.records import (
    Claimed,
    Finished,
    Halt,
    Job,
    JobState,
    NewLine,
    Output,
    Pause,
    Problem,
    Spooled,
    StoredFile,
    counts_of,
)
from tiergate.batch.runner import Progress, Runner

__all__ = [
    "CONCURRENCY",
    "CONCURRENCY_MAX",
    "SAMPLE_MAX",
    "WINDOW_S",
    "WINDOW_S_MAX",
    "Batches",
    "Claimed",
    "Estimate",
    "Estimator",
    "FileStore",
    "Finished",
    "Halt",
    "Job",
    "JobState",
    "JobStore",
    "LineAsks",
    "NewLine",
    "NoSuchBatch",
    "Output",
    "Pause",
    "Problem",
    "Progress",
    "Range",
    "Runner",
    "Said",
    "Spooled",
    "StoredFile",
    "View",
    "Wish",
    "counts_of",
]
