"""What an error means to its line and to its job: every error of the tree is judged, each for a reason."""

import inspect
import math
from typing import Any

import pytest

from tiergate.batch.verdict import TRIES, Again, Broke, Fails, Over, Stops, Verdict, verdict
from tiergate.core import (
    AnswerNotKept,
    BudgetBusy,
    BudgetExceeded,
    BudgetUnbounded,
    CannotStart,
    DeadlineExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    NoTargetAvailable,
    NotCached,
    RateLimited,
    Refused,
    RequestTooLarge,
    SettingsError,
    StorageBroken,
    StorageUnavailable,
    StoreOwned,
    TargetFull,
    TargetResting,
    TargetThrottled,
    TiergateError,
    Unaffordable,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
    errors,
)
from tiergate.serve import Stopping
from tiergate.wire import BadLine

FAILS = Fails()
OUTAGE = Again(word="outage", counts=True, pushes=True, is_weather=True)
THROTTLED = Again(word="throttled", wait_s=7.0, pushes=True, is_weather=True)
FIRST: list[tuple[TiergateError, Verdict]] = [
    # Its own fault: another try would fare the same.
    (TiergateError("x"), FAILS),
    (Refused("x"), FAILS),
    (InvalidRequest("x"), FAILS),
    (RequestTooLarge("x"), FAILS),
    (ModelNotFound("m", ()), FAILS),
    (IdempotencyKeyReused("x"), FAILS),
    (IdempotencyKeyInUse("x"), FAILS),
    (AnswerNotKept("x"), FAILS),
    (NotCached("x"), FAILS),
    (UpstreamRejected("x", status=400), FAILS),
    (SettingsError(("x",)), FAILS),
    (StoreOwned("x"), FAILS),
    (CannotStart("x"), FAILS),
    (BadLine("x"), FAILS),
    # Nobody was asked, or asked in vain: others at this time would fare the same.
    (
        RateLimited("x", key="k", limit="rpm", retry_after_s=7.0),
        Again(word="key_limit", wait_s=7.0, pushes=True),
    ),
    (TargetFull("x"), Again(word="throttled", pushes=True, is_weather=True)),
    (TargetThrottled("x", retry_after_s=7.0), THROTTLED),
    (TargetResting("x", retry_after_s=7.0), Again(word="outage", wait_s=7.0, is_weather=True)),
    (UpstreamThrottled("x", retry_after_s=7.0), THROTTLED),
    (StorageUnavailable("x"), Again(word="storage", wait_s=1.0, is_weather=True)),
    (StorageBroken("x"), Over()),
    (Stopping(), Again(word="stopping")),
    # A try of this line's.
    (UpstreamError("x"), OUTAGE),
    (Unaffordable("x"), OUTAGE),
    (UpstreamUnreachable("x"), OUTAGE),
    (UpstreamInterrupted("x"), OUTAGE),
    (UpstreamFault("x"), OUTAGE),
    (UpstreamTimeout("x", phase="idle"), Again(word="timeout", counts=True, pushes=True, is_weather=True)),
    (UpstreamProtocolError("x"), Again(word="protocol", counts=True, pushes=True, is_weather=True)),
    (NoTargetAvailable("m", ()), Again(word="timeout", counts=True, is_weather=True)),
    (DeadlineExceeded("x"), Again(word="timeout", counts=True, is_weather=True)),
    # Money.
    (BudgetBusy("x"), Again(word="budget_busy", narrows=True)),
    (BudgetExceeded("x", budget="b", until_ns=9), Broke(budget="b", until_ns=9)),
    (BudgetUnbounded("x"), Fails()),
    # Somebody has to do something.
    (InvalidKey("x"), Stops(word="key")),
    (UpstreamAuthFailed("x"), Stops(word="credential")),
    (UpstreamThrottled("x", quota=True), Stops(word="funds")),
]


@pytest.mark.parametrize(("error", "expected"), FIRST, ids=lambda value: type(value).__name__)
def test_each_error_is_judged(error: TiergateError, expected: Verdict) -> None:
    """At a line's first try."""
    assert verdict(error, 0) == expected


def test_no_error_of_the_tree_is_forgotten() -> None:
    """A new one is to be judged here, before it meets a line."""
    tree = {
        error
        for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, TiergateError)
    }
    assert tree - {type(error) for error, _ in FIRST} == set()


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (UpstreamFault("x"), 5),
        (UpstreamUnreachable("x"), 5),
        (UpstreamInterrupted("x"), 5),
        (UpstreamTimeout("x", phase="total"), 3),
        (NoTargetAvailable("m", ()), 3),
        (DeadlineExceeded("x"), 3),
        (UpstreamProtocolError("x"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_line_is_asked_so_often(error: TiergateError, tries: int) -> None:
    """The last try in vain is its end."""
    found = [type(verdict(error, before)) for before in range(tries + 2)]
    assert found == [Again] * (tries - 1) + [Fails] * 3


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("x", key="k", limit="rpm", retry_after_s=7.0),
        TargetFull("x"),
        TargetResting("x", retry_after_s=7.0),
        UpstreamThrottled("x"),
        StorageUnavailable("x"),
        Stopping(),
        BudgetBusy("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_its_fault_never_ends_a_line(error: TiergateError) -> None:
    """However often it meets it: nobody was asked, or the answer was to wait."""
    found = verdict(error, 1_000)
    assert isinstance(found, Again) and not found.counts


def test_what_a_provider_asks_to_wait_is_passed_on() -> None:
    """Of a fault, too."""
    error = UpstreamFault("x")
    error.retry_after_s = 12.0
    found = verdict(error, 0)
    assert isinstance(found, Again) and found.wait_s == 12.0


def test_a_target_that_was_isolated_by_hand_is_looked_at_again() -> None:
    """Nobody knows when that ends; a wait without an end is no time to wait until."""
    found = verdict(TargetResting("x", retry_after_s=math.inf), 0)
    assert isinstance(found, Again) and found.wait_s == 60.0


def test_every_class_that_counts_has_its_tries() -> None:
    """Else its first failure would be a line's end."""
    judged: list[Any] = [found for _, found in FIRST]
    assert {found.word for found in judged if isinstance(found, Again) and found.counts} == set(TRIES)
