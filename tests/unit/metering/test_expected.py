"""Estimates of input tokens: never needed for money, wrong by a few percent, and saying by how many.

`token_counts.jsonl` holds real texts with their tokens in two public tokenizers, counted with tiktoken 0.12:
the demo's questions, code of this project, Django's translations into Vietnamese and Chinese, made-up emoji
and base64.
"""

import json
import random
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tiergate.catalog import OWNED
from tiergate.metering import COUNTED, Lines, bound, shape_of
from tiergate.wire import dumps

TOKENIZERS = ("cl100k_base", "o200k_base")
KINDS = ("math", "code", "vietnamese", "chinese", "emoji", "base64")


@cache
def counted() -> list[dict[str, Any]]:
    prompts = (resources.files("tiergate.app.demo") / "data" / "prompts.jsonl").read_text("utf-8")
    questions = [json.loads(line)["prompt"] for line in prompts.splitlines()]
    lines = Path(__file__).with_name("token_counts.jsonl").read_text("utf-8").splitlines()
    return [
        {"text": questions[row["prompt"]] if "prompt" in row else row["text"], **row}
        for row in map(json.loads, lines)
    ]


def question(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [row for row in counted() if kind in (row["kind"], "mixed")]


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_after_200_calls_the_median_error_is_at_most_five_percent(tokenizer: str, kind: str) -> None:
    """Whatever is asked and however the model counts; small kinds come round more than once."""
    rows, lines, errors = of_kind(kind), Lines(), []
    chance = random.Random(7)
    for n in range(400):
        row = chance.choice(rows)
        shape, truth = shape_of(question(row["text"])), row[tokenizer] + 7  # as many as a chat template adds
        expected = lines.expect("p/m", shape)
        if n >= 200:
            errors.append(abs(expected.input_tokens - truth) / truth)
        lines.learn("p/m", shape, truth)
    assert median(errors) <= 0.05
    stated = lines.expect("p/m", shape).error
    assert stated is not None and stated <= 0.05
    assert stated == pytest.approx(median(errors), abs=0.01)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_bound_is_never_below_the_truth(tokenizer: str) -> None:
    """On every text at hand; the bound is what money rests on."""
    for row in counted():
        body = question(row["text"])
        worst = bound(body, prompt_bytes=len(dumps(body)), output_tokens=1, choices=1, price=OWNED)
        assert worst.input_tokens is not None and worst.input_tokens >= row[tokenizer] + 7


@pytest.mark.parametrize(("kind", "error"), [("math", 0.1), ("code", 0.1)])
def test_before_any_call_english_and_code_are_told_within_a_tenth(kind: str, error: float) -> None:
    """By the general line, which knows nothing of the target and states no error."""
    lines = Lines()
    for tokenizer in TOKENIZERS:
        errors = []
        for row in of_kind(kind):
            expected = lines.expect("p/m", shape_of(question(row["text"])))
            assert expected.error is None and expected.learned_from == 0
            errors.append(abs(expected.input_tokens - row[tokenizer] - 7) / row[tokenizer])
        assert median(errors) <= error


def test_targets_learn_apart() -> None:
    """What one reports changes nothing for another."""
    lines, shape = Lines(), shape_of(question("How many?"))
    before = lines.expect("p/other", shape)
    for _ in range(30):
        lines.learn("p/m", shape, 1000)
    assert abs(lines.expect("p/m", shape).input_tokens - 1000) < 100
    assert lines.expect("p/other", shape) == before


def test_a_shape_is_counts_of_what_is_said_and_of_nothing_else() -> None:
    """Text wherever it stands; pictures have none."""
    parts = [{"type": "text", "text": "two words"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    shape = dict(zip(COUNTED, shape_of({"messages": [{"role": "user", "content": parts}]}), strict=True))
    assert (shape["words"], shape["messages"], shape["runs of punctuation"]) == (2, 1, 0)
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    assert shape_of({"messages": [], "tools": tools})[0] > 2
    for odd in (None, "text", 5, [None, {"content": 5}, {"content": [5, {"text": 5}]}]):
        assert len(shape_of({"messages": odd})) == len(COUNTED)


def test_a_long_text_is_looked_at_in_part() -> None:
    """A megabyte has the shape of its slices, scaled up."""
    text = "The quick brown fox, 12 times. " * 40_000
    whole, short = (shape_of(question(one)) for one in (text, text[:3100]))
    assert whole[0] == pytest.approx(short[0] * len(text) / 3100, rel=0.02)


def test_shapes_are_taken_of_each_call_at_first_and_of_few_later() -> None:
    """They cost more than the rest of a call's accounting."""
    lines = Lines()
    wanted = [lines.wants("p/m") for _ in range(1200)]
    assert all(wanted[:200])
    assert sum(wanted[200:]) == 20
