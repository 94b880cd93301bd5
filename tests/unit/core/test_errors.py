"""The error tree: as drawn, with blame and code for each, and sentences made by us."""

import inspect

import pytest

from tiergate.core import (
    Blame,
    Delivery,
    InvalidRequest,
    ModelNotFound,
    NoTargetAvailable,
    SettingsError,
    TargetFull,
    TiergateError,
    UpstreamError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    errors,
)


def drawn() -> dict[str, str]:
    """Child and parent of every line of the picture in `core/errors.py`."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        stripped = line.lstrip(" │├└─")
        depth = (len(line) - len(stripped) - 4) // 4
        name = stripped.split(" ")[0]
        if line.startswith("    ") and name:
            path[depth:] = [name]
            if depth:
                parents[name] = path[depth - 1]
    return parents


def test_the_tree_is_as_drawn() -> None:
    """Every error of the module stands in the picture, under its own parent, and no other does."""
    classes = {
        name: error.__bases__[0].__name__
        for name, error in vars(errors).items()
        if inspect.isclass(error) and issubclass(error, TiergateError) and error is not TiergateError
    }
    assert drawn() == classes


def test_every_leaf_has_a_blame_and_one_of_the_known_codes() -> None:
    """Clients branch on these words: another one is a change of the interface."""
    codes = {
        "invalid_request",
        "not_cached",
        "idempotency_key_in_use",
        "idempotency_key_reused",
        "invalid_api_key",
        "model_not_found",
        "request_too_large",
        "rate_limit_exceeded",
        "upstream_auth_failed",
        "upstream_unreachable",
        "upstream_protocol_error",
        "upstream_fault",
        "no_target_available",
        "storage_unavailable",
        "upstream_timeout",
        "budget_exceeded",
        "answer_not_kept",
        "budget_busy",
        "budget_unbounded",
    }
    before_start = {"invalid_settings", "store_owned", "cannot_start"}
    leaves = [error for error in map(errors.__dict__.get, drawn()) if error and not error.__subclasses__()]
    assert {error.code for error in leaves} == codes | before_start
    assert all(isinstance(error.blame, Blame) for error in leaves)


def test_only_a_rejected_request_is_not_tried_elsewhere() -> None:
    """A request that one provider found at fault is at fault everywhere."""
    leaves = [
        error for error in map(errors.__dict__.get, drawn()) if error and issubclass(error, UpstreamError)
    ]
    assert [error.__name__ for error in leaves if not error.elsewhere] == ["UpstreamRejected"]


def test_a_full_target_was_never_reached() -> None:
    """So its hold may be released; and it is our doing."""
    error = TargetFull("all places taken", target="p/m")
    assert (error.delivery, error.blame, error.target) == (Delivery.NONE, Blame.US, "p/m")


def test_an_unknown_delivery_is_a_possible_one() -> None:
    """Who forgets to say it does not give money back."""
    assert UpstreamError("x").delivery is Delivery.POSSIBLE
    assert UpstreamTimeout("x", phase="idle").delivery is Delivery.POSSIBLE
    assert UpstreamThrottled("x").delivery is Delivery.CONFIRMED
    assert UpstreamRejected("x", status=400).delivery is Delivery.CONFIRMED


@pytest.mark.parametrize(
    ("known", "shown"),
    [((), "Models: none."), (("a", "b"), "Models: a, b."), (tuple("m" * 25), "and 5 more.")],
)
def test_an_unknown_model_is_answered_with_the_list(known: tuple[str, ...], shown: str) -> None:
    """At most twenty names, and how many more there are."""
    error = ModelNotFound("gpt-9", known)
    assert "'gpt-9'" in str(error) and shown in str(error)
    assert error.known == known


def test_a_name_that_the_caller_made_up_is_quoted_and_cut() -> None:
    """Control characters are shown as escapes, and a long name does not fill the log."""
    assert "\n" not in str(ModelNotFound("a\nb", ()))
    assert len(str(ModelNotFound("x" * 10_000, ()))) < 500
    assert len(str(NoTargetAvailable("x" * 10_000, ()))) < 500


def test_no_target_says_why_for_each() -> None:
    """In order."""
    error = NoTargetAvailable("m", (("p/m", "circuit open"), ("q/m", "the call is private-only")))
    assert str(error).endswith("p/m: circuit open; q/m: the call is private-only")


def test_errors_carry_facts() -> None:
    """The field at fault, the problems of a settings file."""
    assert InvalidRequest("x", param="n").param == "n"
    assert str(SettingsError(("one", "two"))) == "one\ntwo"
