"""What a call may do: names of models, limits of time, and where each comes from."""

import pytest

from tiergate.catalog import NOTHING_KNOWN, Ability, ModelFacts, PriceBook
from tiergate.core import LOCAL, Call, Caller, DataClass, InvalidRequest, ModelNotFound, Target, Tier
from tiergate.resilience import RetryPolicy
from tiergate.routing import Policy
from tiergate.serve import ModelEntry, Rules, find_model, resolve

RACK = Target(provider="rack", model="deepseek-ai/DeepSeek-V3.2", tier=Tier.PRIVATE)
SHEEP = Target(provider="holysheep", model="deepseek-v3.2", tier=Tier.HOSTED)
RETRY = RetryPolicy(
    attempts=2, first_event_s=30, idle_s=20, total_s=100, stream_total_s=1000, permit_wait_s=3
)


def rules(**changes: object) -> Rules:
    fields: dict[str, object] = {
        "generation": 7,
        "models": {
            "deepseek-v3.2": ModelEntry(targets=(RACK, SHEEP)),
            "rack/odd": ModelEntry(targets=(SHEEP,)),
        },
        "providers": {"rack": Tier.PRIVATE, "holysheep": Tier.HOSTED},
        "prices": PriceBook([]),
        "retry": RETRY,
    }
    return Rules(**{**fields, **changes})  # type: ignore[arg-type]  # a table of keyword arguments


def call(**changes: object) -> Call:
    fields: dict[str, object] = {
        "id": "01call",
        "caller": LOCAL,
        "endpoint": "chat/completions",
        "asked_model": "deepseek-v3.2",
        "body": {},
        "prompt_bytes": 0,
        "streamed": False,
        "received_ns": 0,
        "received": 50.0,
    }
    return Call(**{**fields, **changes})  # type: ignore[arg-type]  # a table of keyword arguments


@pytest.mark.parametrize(
    ("asked", "targets"),
    [
        ("deepseek-v3.2", [RACK.name, SHEEP.name]),
        ("rack/anything", ["rack/anything"]),
        ("rack/deepseek-ai/DeepSeek-V3.2", ["rack/deepseek-ai/DeepSeek-V3.2"]),
        ("rack/odd", [SHEEP.name]),
    ],
)
def test_a_model_is_a_name_of_the_settings_or_provider_and_upstream_name(
    asked: str, targets: list[str]
) -> None:
    """A name of the settings goes first, whatever it looks like."""
    assert [target.name for target in find_model(asked, rules()).targets] == targets


def test_a_model_at_a_provider_has_the_providers_tier() -> None:
    """So a private-only call can name its target itself."""
    (target,) = find_model("rack/x", rules()).targets
    assert target.tier is Tier.PRIVATE


@pytest.mark.parametrize(
    "asked", ["gpt-9", "rack", "rack/", "/rack", "nobody/x", "DEEPSEEK-V3.2", "https://evil/x", "", "*"]
)
def test_any_other_name_is_unknown_and_answered_with_the_list(asked: str) -> None:
    """No name leads to a server that the settings do not have."""
    with pytest.raises(ModelNotFound) as refusal:
        find_model(asked, rules())
    assert refusal.value.known == ("deepseek-v3.2", "rack/odd")


def test_a_star_takes_every_other_name_in_order() -> None:
    """And sends it on as it is; the settings' own names and providers still go first."""
    open_rules = rules(any_model=("holysheep", "rack"))
    entry = find_model("gpt-9", open_rules)
    assert [target.name for target in entry.targets] == ["holysheep/gpt-9", "rack/gpt-9"]
    assert [target.tier for target in entry.targets] == [Tier.HOSTED, Tier.PRIVATE]
    assert entry.policy is Policy.IN_ORDER
    assert find_model("deepseek-v3.2", open_rules).targets == (RACK, SHEEP)
    assert [target.name for target in find_model("rack/x", open_rules).targets] == ["rack/x"]
    odd = find_model("https://evil/x", open_rules)
    assert {target.provider for target in odd.targets} == {"holysheep", "rack"}


@pytest.mark.parametrize(
    ("streamed", "time_limit_s", "deadline"),
    [
        (False, None, 150.0),
        (True, None, 1050.0),
        (False, 10.0, 60.0),
        (True, 10.0, 60.0),
        (False, 5000.0, 150.0),
        (True, 5000.0, 1050.0),
        (False, 0.0, 50.0),
    ],
)
def test_the_deadline_is_the_nearer_of_ours_and_the_callers(
    streamed: bool, time_limit_s: float | None, deadline: float
) -> None:
    """Counted from when the call was received; a caller can only shorten it."""
    assert resolve(call(streamed=streamed, time_limit_s=time_limit_s), rules()).deadline == deadline


@pytest.mark.parametrize(("asked_s", "limit_s"), [(None, 30), (5.0, 5), (500.0, 30)])
def test_the_first_event_is_due_at_the_nearer_time(asked_s: float | None, limit_s: float) -> None:
    """The same rule."""
    patience = resolve(call(first_event_limit_s=asked_s), rules()).patience(RACK)
    assert (patience.first_event_s, patience.idle_s) == (limit_s, 20)
    assert patience.is_hasty == (limit_s < 30)


def test_a_model_that_thinks_is_given_more_time() -> None:
    """For its first event and between two; a caller's own patience still holds."""
    thinks = ModelFacts(abilities={Ability.REASONING: True})
    given = rules(facts=lambda target: thinks if target == RACK else NOTHING_KNOWN)
    resolved = resolve(call(), given)
    assert (resolved.patience(RACK).first_event_s, resolved.patience(RACK).idle_s) == (300, 300)
    assert (resolved.patience(SHEEP).first_event_s, resolved.patience(SHEEP).idle_s) == (30, 20)
    hasty = resolve(call(first_event_limit_s=50), given).patience(RACK)
    assert (hasty.first_event_s, hasty.idle_s, hasty.is_hasty) == (50, 300, True)


@pytest.mark.parametrize("tiers", [None, ("hosted", "private"), ("hosted",)])
def test_a_private_only_call_needs_a_private_target_that_may_answer(tiers: tuple[str, ...] | None) -> None:
    """The settings and the key decide that, not who is up: 400, and no 503 that invites to try again."""
    caller = Caller(key="k", tiers=tiers)
    asked = "holysheep/x" if tiers is None or "private" in tiers else "deepseek-v3.2"
    with pytest.raises(InvalidRequest, match="has no private target that may answer it") as refusal:
        resolve(call(asked_model=asked, caller=caller, data_class=DataClass.PRIVATE_ONLY), rules())
    assert refusal.value.param == "model"


def test_the_rest_is_the_rules_and_the_callers_data_class() -> None:
    """One snapshot: a running call keeps its generation and prices."""
    rulebook = rules()
    resolved = resolve(call(data_class=DataClass.PRIVATE_ONLY), rulebook)
    assert (resolved.generation, resolved.prices, resolved.retry) == (7, rulebook.prices, rulebook.retry)
    assert resolved.data_class is DataClass.PRIVATE_ONLY
    assert resolved.targets == (RACK, SHEEP)
