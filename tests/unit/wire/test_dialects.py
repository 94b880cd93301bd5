"""What each vendor's replies look like, whole and streamed: its usage object, read into buckets.

Written by us from the pages named with each; counts are chosen so that a token read twice, or not at all,
shows.
"""

from dataclasses import dataclass
from typing import Any

import pytest

from tiergate.core import Usage
from tiergate.wire import ChatStream, dumps, read_reply


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One vendor's usage object, where it is described, what it means, and what it says the call costs."""

    vendor: str
    page: str
    usage: dict[str, Any]
    read: Usage
    cost_nanos: int | None = None
    on_the_last_chunk: bool = False
    """Streams carry usage beside the finish reason and not in a chunk of its own."""
    done: bool = True


DIALECTS = (
    Dialect(
        vendor="openai",
        page="https://platform.openai.com/docs/api-reference/chat/object",
        usage={
            "prompt_tokens": 1117,
            "completion_tokens": 446,
            "total_tokens": 1563,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 320,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        read=Usage(input=93, cache_read=1024, output=126, reasoning=320),
    ),
    Dialect(
        vendor="deepseek",
        page="https://api-docs.deepseek.com/api/create-chat-completion",
        usage={
            "prompt_tokens": 500,
            "completion_tokens": 70,
            "total_tokens": 570,
            "prompt_cache_hit_tokens": 384,
            "prompt_cache_miss_tokens": 116,
            "completion_tokens_details": {"reasoning_tokens": 40},
        },
        read=Usage(input=116, cache_read=384, output=30, reasoning=40),
        on_the_last_chunk=True,
    ),
    Dialect(
        vendor="openrouter",
        page="https://openrouter.ai/docs/use-cases/usage-accounting",
        usage={
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 100, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost": 0.000_95,
            "cost_details": {"upstream_inference_cost": 19},
        },
        read=Usage(input=64, cache_read=30, cache_write_5m=100, output=2),
        cost_nanos=950_000,
    ),
    Dialect(
        vendor="xai",
        page="https://docs.x.ai/docs/guides/reasoning",
        usage={
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {
                "text_tokens": 32,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": 6,
            },
            "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0},
            "num_sources_used": 0,
        },
        read=Usage(input=26, cache_read=6, output=9, reasoning=94),
    ),
    Dialect(
        vendor="google",
        page="https://ai.google.dev/gemini-api/docs/openai",
        usage={"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        read=Usage(input=20, output=603),
        on_the_last_chunk=True,
    ),
    Dialect(
        vendor="mistral",
        page="https://docs.mistral.ai/api",
        usage={"prompt_tokens": 16, "completion_tokens": 34, "total_tokens": 50},
        read=Usage(input=16, output=34),
        on_the_last_chunk=True,
    ),
    Dialect(
        vendor="anthropic",
        page="https://platform.claude.com/docs/en/api/openai-sdk",
        usage={
            "prompt_tokens": 25,
            "completion_tokens": 15,
            "total_tokens": 40,
            "prompt_tokens_details": None,
        },
        read=Usage(input=25, output=15),
    ),
    Dialect(
        vendor="a proxy with Anthropic's words beside the totals",
        page="https://docs.litellm.ai/docs/completion/prompt_caching",
        usage={
            "prompt_tokens": 150,
            "completion_tokens": 10,
            "total_tokens": 160,
            "prompt_tokens_details": {"cached_tokens": 100},
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        },
        read=Usage(input=20, cache_read=100, cache_write_5m=10, cache_write_1h=20, output=10),
    ),
    Dialect(
        vendor="a proxy that counts cached tokens beside the prompt",
        page="https://platform.claude.com/docs/en/build-with-claude/prompt-caching",
        usage={
            "prompt_tokens": 20,
            "completion_tokens": 10,
            "total_tokens": 160,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30,
        },
        read=Usage(input=20, cache_read=100, cache_write_5m=30, output=10),
    ),
    Dialect(
        vendor="anthropic-compatible servers",
        page="https://platform.claude.com/docs/en/api/messages",
        usage={
            "input_tokens": 20,
            "output_tokens": 10,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0},
            "service_tier": "standard",
        },
        read=Usage(input=20, cache_read=100, cache_write_5m=30, output=10),
    ),
    Dialect(
        vendor="vllm",
        page="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        usage={"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16, "prompt_tokens_details": None},
        read=Usage(input=7, output=9),
    ),
    Dialect(
        vendor="llamacpp",
        page="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        usage={"completion_tokens": 9, "prompt_tokens": 7, "total_tokens": 16},
        read=Usage(input=7, output=9),
    ),
    Dialect(
        vendor="ollama",
        page="https://docs.ollama.com/api/openai-compatibility",
        usage={"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324},
        read=Usage(input=26, output=298),
    ),
    Dialect(
        vendor="transformers",
        page="https://huggingface.co/docs/transformers/serving",
        usage={"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16},
        read=Usage(input=7, output=9),
        on_the_last_chunk=True,
        done=False,
    ),
)
by_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.vendor)


@by_vendor
def test_a_whole_reply(dialect: Dialect) -> None:
    """Every token in one bucket; their sum is what the vendor says that it is."""
    message = {"role": "assistant", "content": "word"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    chunk = read_reply(dumps({"choices": [choice], "usage": dialect.usage}))
    assert chunk.usage == dialect.read
    assert chunk.cost_nanos == dialect.cost_nanos
    total = dialect.usage.get("total_tokens")
    assert total is None or dialect.read.total_tokens == total


@by_vendor
def test_a_stream(dialect: Dialect) -> None:
    """Wherever the vendor puts it, and also where it comes twice, the last report is the one that counts."""
    stream = ChatStream()
    last: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [dumps({"choices": [{"index": 0, "delta": {"content": "word"}}]})]
    if dialect.on_the_last_chunk:
        events += [dumps({**last, "usage": dialect.usage})]
    else:
        events += [dumps(last), dumps({"choices": [], "usage": dialect.usage})]
    events += [b"[DONE]"] if dialect.done else []
    chunks = [chunk for event in events for chunk in stream.feed(b"data: " + event + b"\n\n")]
    stream.end()
    assert [chunk.usage for chunk in chunks if chunk.usage] == [dialect.read]
    assert [chunk.bare_usage for chunk in chunks if chunk.usage] == [not dialect.on_the_last_chunk]


@pytest.mark.parametrize(
    ("cost", "nanos"),
    [
        (0, 0),
        (0.0, 0),
        (2, 2_000_000_000),
        (1e-9, 1),
        (1e-10, 0),
        (0.1, 100_000_000),
        (None, None),
        ("0.1", None),
        (-0.1, None),
        (True, None),
        (10**9, None),
        ({"total": 1}, None),
    ],
)
def test_the_cost_that_an_upstream_states(cost: object, nanos: int | None) -> None:
    """To the nano-dollar, through no binary fraction; nonsense is as if it were not there."""
    reply = {"choices": [{"index": 0}], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": cost}}
    assert read_reply(dumps(reply)).cost_nanos == nanos


@pytest.mark.parametrize(("said", "read"), [("flex", "flex"), (None, None), (5, None), ("x" * 99, "x" * 32)])
def test_the_service_tier_that_was_used(said: object, read: str | None) -> None:
    """A word, bounded; it decides about the price."""
    assert read_reply(dumps({"choices": [{"index": 0}], "service_tier": said})).service_tier == read
