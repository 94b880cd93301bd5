"""Estimates: input, cached input and output priced apart, every model beside the one that is asked for."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tiergate.config import fill, load_text
from tiergate.core import InvalidRequest, ModelNotFound
from tiergate.metering import Lines, shape_of
from tiergate.web import estimate, models_list

SETTINGS = """
providers:
  rack: {base_url: http://127.0.0.1:8000/v1, tier: private}
  shop: {base_url: https://shop.example/v1}
  openai: {base_url: https://api.openai.com/v1}
models:
  cheap: {targets: [shop/cheap]}
  dear: {targets: [shop/dear, openai/gpt-4.1]}
  own: {targets: [rack/own, shop/cheap]}
  blank: {targets: [shop/blank]}
prices:
- {target: shop/cheap, usd_per_1m: {input: 0.14, output: 0.28, cache_read: 0.014}, source: a page}
- {target: shop/dear, usd_per_1m: {input: 2, output: 8}, per_request: 0.001}
"""
RULES = fill.rules(load_text(SETTINGS, {}).settings, generation=1)
NOW = int(datetime(2026, 11, 26, tzinfo=UTC).timestamp()) * 10**9
MESSAGES = [{"role": "user", "content": "How many legs does a spider have?"}]


def asked(lines: Lines | None = None, **body: Any) -> dict[str, Any]:
    return estimate(body, RULES, lines or Lines(), wall_ns=NOW)


def rows(answer: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["target"]): row for row in answer["data"]}


def test_the_parts_are_priced_apart_and_add_up() -> None:
    """10 million tokens, half of the input from the cache."""
    answer = asked(prompt_tokens=8_000_000, cached_tokens=4_000_000, completion_tokens=2_000_000)
    row = rows(answer)["cheap", "shop/cheap"]
    parts = [row[name] for name in ("input_usd", "cached_input_usd", "output_usd", "fee_usd")]
    assert parts == [Decimal("0.56"), Decimal("0.056"), Decimal("0.56"), 0]
    assert row["cost_usd"] == sum(parts)
    assert (row["price"], row["price_source"]) == ("known", "a page")
    assert (row["prompt_tokens"], row["prompt_tokens_source"], row["bound_usd"]) == (8_000_000, "given", None)


def test_every_model_stands_beside_the_one_that_is_asked_for_cheapest_first() -> None:
    """The saving is against the first target of that model, and negative where it would cost more."""
    answer = asked(model="dear", prompt_tokens=1_000_000, completion_tokens=1_000_000)
    assert answer["against"] == {"model": "dear", "target": "shop/dear", "cost_usd": Decimal("10.001")}
    found = [(row["model"], row["target"], row["cost_usd"], row["saving_usd"]) for row in answer["data"]]
    assert found == [
        ("own", "rack/own", 0, Decimal("10.001")),
        ("cheap", "shop/cheap", Decimal("0.42"), Decimal("9.581")),
        ("own", "shop/cheap", Decimal("0.42"), Decimal("9.581")),
        ("dear", "openai/gpt-4.1", Decimal(10), Decimal("0.001")),
        ("dear", "shop/dear", Decimal("10.001"), 0),
        ("blank", "shop/blank", None, None),
    ]


def test_a_million_in_and_a_million_out_are_not_priced_on_average() -> None:
    """The comparison that everybody gets wrong: 10M tokens a month at 0.42 is not what 0.14 and 0.28 make."""
    mixed = rows(asked(prompt_tokens=5_000_000, completion_tokens=5_000_000))["cheap", "shop/cheap"]
    assert mixed["cost_usd"] == Decimal("2.10")


def test_an_unknown_price_is_said_and_never_zero() -> None:
    """A private target's is owned: it invoices nothing per call."""
    found = rows(asked(prompt_tokens=1, completion_tokens=1))
    assert (found["blank", "shop/blank"]["price"], found["blank", "shop/blank"]["cost_usd"]) == (
        "unknown",
        None,
    )
    assert (found["own", "rack/own"]["price"], found["own", "rack/own"]["cost_usd"]) == ("owned", 0)


def test_tokens_are_told_from_messages_with_the_error_of_the_telling() -> None:
    """Expected for each target apart; the bound beside it is never below."""
    lines = Lines()
    for _ in range(30):
        lines.learn("shop/cheap", shape_of({"messages": MESSAGES}), 100)
    found = rows(asked(lines, messages=MESSAGES, max_tokens=10, n=2))
    cheap, dear = found["cheap", "shop/cheap"], found["dear", "shop/dear"]
    assert cheap["prompt_tokens"] == pytest.approx(100, abs=5)
    assert cheap["error"] is not None and dear["error"] is None
    assert dear["prompt_tokens"] < 30
    assert cheap["output_usd"] == Decimal(20) * Decimal("0.28") / 1_000_000
    for row in (cheap, dear):
        assert row["prompt_tokens_source"] == "expected"
        assert row["bound_usd"] > row["cost_usd"]


def test_a_target_that_no_model_names_can_be_asked_for() -> None:
    """As `provider/upstream-name`; the vendor's price is known."""
    answer = asked(model="openai/gpt-4.1-mini", prompt_tokens=1_000_000, completion_tokens=0)
    assert answer["against"]["cost_usd"] == Decimal("0.4")


def test_an_unknown_model_is_an_error_with_the_list() -> None:
    """Nothing is guessed."""
    with pytest.raises(ModelNotFound) as caught:
        asked(model="chaep", prompt_tokens=1, completion_tokens=1)
    assert "cheap" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt_tokens"),
        ({"prompt_tokens": 5}, "completion_tokens"),
        ({"prompt_tokens": -1, "completion_tokens": 1}, "prompt_tokens"),
        ({"prompt_tokens": 1.5, "completion_tokens": 1}, "prompt_tokens"),
        ({"prompt_tokens": True, "completion_tokens": 1}, "prompt_tokens"),
        ({"prompt_tokens": 5, "completion_tokens": "5"}, "completion_tokens"),
        ({"prompt_tokens": 5, "completion_tokens": 10**12}, "completion_tokens"),
        ({"prompt_tokens": 5, "cached_tokens": 6, "completion_tokens": 1}, "cached_tokens"),
        ({"messages": "hello", "completion_tokens": 1}, "messages"),
        ({"messages": [], "completion_tokens": 1}, "messages"),
        ({"model": "openai/" + "x" * 300, "prompt_tokens": 5, "completion_tokens": 1}, "model"),
        ({"messages": MESSAGES, "max_tokens": -1}, "max_tokens"),
        ({"model": 5, "prompt_tokens": 5, "completion_tokens": 1}, "model"),
        ({"model": "", "prompt_tokens": 5, "completion_tokens": 1}, "model"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(body: dict[str, Any], param: str) -> None:
    """A sentence that says what to give."""
    with pytest.raises(InvalidRequest) as caught:
        asked(**body)
    assert caught.value.param == param


def test_the_service_tier_that_is_asked_for_decides() -> None:
    """Batch costs half at OpenAI; a tier without a price has no known cost."""
    tokens = {"model": "openai/gpt-4.1", "prompt_tokens": 1_000_000, "completion_tokens": 0}
    costs = [
        asked(**tokens, service_tier=tier)["against"]["cost_usd"] for tier in (None, "auto", "batch", "odd")
    ]
    assert costs == [2, 2, 1, None]


def test_what_is_not_text_is_said_to_be_left_out() -> None:
    """A picture is in no count of words, so nobody takes the estimate for the whole."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = asked(messages=[{"role": "user", "content": [picture]}], completion_tokens=1)
    assert {row["prompt_tokens_source"] for row in answer["data"]} == {"expected_of_text_only"}
    assert {row["bound_usd"] for row in answer["data"] if row["tier"] == "hosted"} == {None}


def test_a_question_that_does_not_fit_is_said_to_be_none_for_the_model() -> None:
    """Of a model whose context is not known nothing is said."""
    rows = asked(model="openai/gpt-4.1", prompt_tokens=5_000_000, completion_tokens=1)["data"]
    fits = {row["target"]: row["fits_context"] for row in rows}
    assert fits["openai/gpt-4.1"] is False and None in fits.values()


def test_the_list_of_models_says_price_context_and_tiers() -> None:
    """Of each target, and of the model that of the first; an unknown price is a state."""
    models = {model["id"]: model for model in models_list(RULES, wall_ns=NOW)["data"]}
    dear, blank, own = models["dear"], models["blank"], models["own"]
    assert dear["pricing"]["state"] == "known" and dear["pricing"]["usd_per_1m"]["output"] == 8
    assert dear["targets"][1]["price_id"].startswith("genai-prices ")
    assert dear["targets"][1]["usd_per_1m_tiers"]["batch"]["input"] == 1
    assert (dear["context_length"], dear["max_output_tokens"]) == (1_047_576, 32_768)
    # shop/dear is nobody that we know: what both can do is not known either.
    assert dear["targets"][1]["capabilities"]["tools"] is True and dear["capabilities"]["tools"] is None
    assert dear["capabilities"]["reasoning"] is False
    assert blank["pricing"] == {"state": "unknown", "usd_per_1m": None} and blank["context_length"] is None
    assert own["pricing"]["state"] == "owned" and own["tiers"] == ["hosted", "private"]
