"""Caps of a key: everything that multiplies what a call costs, at the cap, above it and absent."""

from collections.abc import Mapping
from typing import Any

import pytest

from tiergate.catalog import ModelFacts
from tiergate.core import (
    LOCAL,
    REASONING_EFFORTS,
    Call,
    Caller,
    Caps,
    DataClass,
    InvalidRequest,
    Reply,
    Target,
)
from tiergate.serve import ModelEntry, Rules, handle, resolve
from unit.serve.stage import RACK, REPLY, SHEET, STREAM, A, B, House, run

ALL = Caps(output_tokens=1_000, choices=4, images=2, reasoning_effort="low")
LONGEST = 1_000


def pictures(number: int, kind: str = "image_url") -> list[dict[str, Any]]:
    """As many as that, over all messages, beside text."""
    text = {"type": "text", "text": "what is this?"}
    return [
        {"role": "system", "content": "be short"},
        *[
            {"role": "user", "content": [text, {"type": kind, kind: {"url": "data:x"}}]}
            for _ in range(number)
        ],
        {"role": "assistant", "content": None},
    ]


MULTIPLIERS: Mapping[str, tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = {
    "max_tokens": ([{"max_tokens": 1_000}, {"max_tokens": 1}], [{"max_tokens": 1_001}], "max_tokens"),
    "max_completion_tokens": (
        [{"max_completion_tokens": 1_000, "max_tokens": None}],
        [{"max_completion_tokens": 1_001}, {"max_tokens": 5, "max_completion_tokens": 1_001}],
        "max_completion_tokens",
    ),
    "n": ([{"n": 4}, {"n": None}], [{"n": 5}], "n"),
    "best_of": (
        [{"best_of": 4}, {"best_of": None, "n": 4}],
        [{"best_of": 5}, {"best_of": 5, "n": 1}, {"best_of": "5"}, {"best_of": 1e9}, {"best_of": True}],
        "best_of",
    ),
    "image_url": ([{"messages": pictures(2)}], [{"messages": pictures(3)}], "messages"),
    "input_image": (
        [{"messages": pictures(2, "input_image")}],
        [{"messages": pictures(3, "input_image")}, {"messages": pictures(1) + pictures(2, "input_image")}],
        "messages",
    ),
    "pictures by another type": (
        [{"messages": pictures(2, "image")}],
        [
            {"messages": pictures(3, "image")},
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}] * 3}]},
            *[
                {"messages": [{"role": "user", "content": [{**kind, "image_url": "data:x"}] * 3}]}
                for kind in ({}, {"type": None}, {"type": []}, {"type": "text"})
            ],
        ],
        "messages",
    ),
    "reasoning_effort": (
        [{"reasoning_effort": effort} for effort in (None, "none", "minimal", "low")],
        [
            {"reasoning_effort": effort}
            for effort in ("medium", "high", "xhigh", "max", "HIGH", "", 3, True, [])
        ],
        "reasoning_effort",
    ),
    "reasoning.effort": (
        [{"reasoning": reasoning} for reasoning in (None, {}, {"effort": None}, {"effort": "low"})],
        [{"reasoning": {"effort": effort}} for effort in ("medium", "high", "xhigh", "max", {}, False)],
        "reasoning.effort",
    ),
    "reasoning that is no object": ([], [{"reasoning": "high"}, {"reasoning": ["high"]}], "reasoning"),
    "reasoning.max_tokens beside an effort": ([], [{"reasoning": {"max_tokens": 1}}], "reasoning.max_tokens"),
    "thinking.budget_tokens beside an effort": (
        [{"thinking": {"type": "enabled"}}],
        [{"thinking": {"type": "enabled", "budget_tokens": 1}}],
        "thinking.budget_tokens",
    ),
}
ALLOWED = [
    pytest.param(fields, id=f"{name} {fields}"[:80])
    for name, (good, _, _) in MULTIPLIERS.items()
    for fields in good
]
REFUSED = [
    pytest.param(fields, param, id=f"{name} {fields}"[:80])
    for name, (_, bad, param) in MULTIPLIERS.items()
    for fields in bad
]


def rules(*targets: Target, **longest: int | None) -> Rules:
    """Rules with one model, and the longest answer of each provider's model."""
    return Rules(
        generation=1,
        models={"model": ModelEntry(targets=targets or (A, B))},
        providers={target.provider: target.tier for target in (A, B, RACK)},
        prices=SHEET,
        facts=lambda target: ModelFacts(output_tokens=longest.get(target.provider, LONGEST)),
    )


def call(caps: Caps | None, fields: Mapping[str, Any] | None = None, **changes: Any) -> Call:
    """A call of a key with these caps, whose body holds these fields."""
    body = {"model": "model", "messages": [{"role": "user", "content": "hi"}], **(fields or {})}
    given = {
        "id": "01call",
        "caller": Caller(key="ci", caps=caps),
        "endpoint": "chat",
        "asked_model": "model",
        "body": body,
        "prompt_bytes": 80,
        "streamed": False,
        "received_ns": 0,
        "received": 0.0,
    }
    return Call(**{**given, **changes})


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fields", [pytest.param({}, id="none of them"), *ALLOWED])
def test_up_to_its_cap_a_call_asks_as_it_likes(fields: Mapping[str, Any], *, streamed: bool) -> None:
    """And without any of the fields, where the model's longest answer is within the cap."""
    assert resolve(call(ALL, fields, streamed=streamed), rules()).targets == (A, B)


@pytest.mark.parametrize("idempotency_key", [None, "k"])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_above_it_is_refused_and_nothing_happens(
    fields: Mapping[str, Any], param: str, idempotency_key: str | None, *, streamed: bool
) -> None:
    """400 with the field, before a receipt, a record, a hold or a byte."""
    house = House({"a": STREAM if streamed else REPLY})
    house.rooms.rules = rules()
    asked = call(ALL, fields, streamed=streamed, idempotency_key=idempotency_key)

    async def client() -> None:
        with pytest.raises(InvalidRequest) as refusal:
            await handle(house.rooms, asked)
        assert refusal.value.param == param

    run(house, client())
    assert not house.events and not house.journal.order and not house.upstream.asked
    assert not house.rooms.admission.statistics().inside


@pytest.mark.parametrize("caps", [None, Caps(), "others"])
@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_not_capped_is_nobodys_business(fields: Mapping[str, Any], param: str, caps: Any) -> None:
    """A caller without caps asks for anything, and each cap is about its own field."""
    if caps == "others":
        of_field = {
            "max_tokens": ("output_tokens",),
            "max_completion_tokens": ("output_tokens",),
            "n": ("choices",),
            "best_of": ("choices",),
            "messages": ("images",),
        }.get(param, ("output_tokens", "reasoning_effort"))
        caps = Caps(**{name: getattr(ALL, name) for name in ALL.__struct_fields__ if name not in of_field})
    assert resolve(call(caps, fields), rules()).targets == (A, B)


@pytest.mark.parametrize("cap", REASONING_EFFORTS)
def test_efforts_are_ordered(cap: str) -> None:
    """Each cap lets through itself and what is less."""
    last = REASONING_EFFORTS.index(cap)
    for place, effort in enumerate(REASONING_EFFORTS):
        asked = call(Caps(reasoning_effort=cap), {"reasoning_effort": effort})
        if place <= last:
            resolve(asked, rules())
        else:
            with pytest.raises(InvalidRequest, match=rf"up to {cap} \(max_reasoning_effort\)"):
                resolve(asked, rules())


@pytest.mark.parametrize("outer_inner", [("reasoning", "max_tokens"), ("thinking", "budget_tokens")])
@pytest.mark.parametrize(
    ("tokens", "passes"),
    [(None, True), (1_000, True), (1_001, False), ("9", False), (9.5, False), (True, False)],
)
def test_tokens_for_reasoning_are_tokens_of_the_answer(
    outer_inner: tuple[str, str], tokens: object, *, passes: bool
) -> None:
    """The cap of the answer holds for them, where none of effort does."""
    outer, inner = outer_inner
    asked = call(Caps(output_tokens=1_000), {"max_tokens": 1_000, outer: {inner: tokens}})
    if passes:
        resolve(asked, rules())
        return
    with pytest.raises(InvalidRequest, match="reasoning included") as refusal:
        resolve(asked, rules())
    assert refusal.value.param == f"{outer}.{inner}"


@pytest.mark.parametrize(
    ("longest", "passes"),
    [
        ({"a": 1_000, "b": 999}, True),
        ({"a": 1_000, "b": 1_001}, False),
        ({"a": 1_001, "b": 1_000}, False),
        ({"a": 1_000, "b": None}, False),
        ({"a": None, "b": None}, False),
    ],
)
def test_without_a_limit_every_model_must_be_known_to_keep_within_the_cap(
    longest: Mapping[str, int | None], *, passes: bool
) -> None:
    """We add no field to a body, so the model's own limit is the only one; else it says what to send."""
    asked = call(Caps(output_tokens=1_000))
    if passes:
        resolve(asked, rules(**longest))
        return
    with pytest.raises(InvalidRequest, match=r"at most 1000 tokens .* Send `max_tokens`") as refusal:
        resolve(asked, rules(**longest))
    assert refusal.value.param == "max_tokens"
    resolve(call(Caps(output_tokens=1_000), {"max_tokens": 1_000}), rules(**longest))


def test_only_those_that_may_answer_count() -> None:
    """A hosted model's limit is no matter of a private-only call, nor of a key for private targets."""
    known = rules(A, RACK, a=None, rack=500)
    caps = Caps(output_tokens=1_000)
    with pytest.raises(InvalidRequest):
        resolve(call(caps), known)
    resolve(call(caps, data_class=DataClass.PRIVATE_ONLY), known)
    resolve(call(None, caller=Caller(key="ci", caps=caps, tiers=("private",))), known)


def test_no_pictures_can_be_a_cap() -> None:
    """Zero is a number."""
    with pytest.raises(InvalidRequest, match="at most 0 pictures"):
        resolve(call(Caps(images=0), {"messages": pictures(1)}), rules())
    resolve(call(Caps(images=0)), rules())


def test_who_needs_no_key_is_not_capped() -> None:
    """Open mode and the Python door."""
    assert LOCAL.caps is None


def test_a_call_within_its_caps_is_answered_as_ever() -> None:
    """The body that leaves is the one that came."""
    house = House({"a": REPLY})
    house.rooms.rules = rules()
    asked = call(ALL, {"n": 4, "max_tokens": 10}, received=house.clock.monotonic())
    assert isinstance(run(house, house.answer(asked)), Reply)
    (question,) = house.upstream.asked
    assert question.body is asked.body
