"""Which answers may be kept."""

from typing import Any

import pytest

from tiergate.cache.control import SAYS_NOTHING, Control
from tiergate.cache.eligible import Bypass, CachePolicy, When, bypass

ZERO = {"temperature": 0, "messages": [{"role": "user", "content": "hi"}]}


def asked(part: dict[str, Any]) -> dict[str, Any]:
    return ZERO | {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0])
def test_a_question_for_the_same_answer_is_answered_from_the_cache(temperature: float) -> None:
    """An explicit temperature of 0."""
    assert bypass(ZERO | {"temperature": temperature}, CachePolicy(), SAYS_NOTHING) is None


@pytest.mark.parametrize("temperature", [None, 0.1, 1, "0", False, [0]])
def test_any_other_temperature_is_not(temperature: object) -> None:
    """Nor none at all: the provider's own is then in force. A model may be said to be kept always."""
    body = ZERO | {"temperature": temperature}
    assert bypass(body, CachePolicy(), SAYS_NOTHING) is Bypass.TEMPERATURE
    del body["temperature"]
    assert bypass(body, CachePolicy(), SAYS_NOTHING) is Bypass.TEMPERATURE
    assert bypass(body, CachePolicy(when=When.ALWAYS), SAYS_NOTHING) is None


def test_settings_and_callers_have_the_first_word() -> None:
    """Whatever the question is."""
    assert bypass(ZERO, CachePolicy(when=When.NEVER), SAYS_NOTHING) is Bypass.OFF
    assert bypass(ZERO, CachePolicy(when=When.ALWAYS), Control(no_store=True)) is Bypass.NO_STORE
    assert bypass(ZERO, CachePolicy(), Control(no_cache=True)) is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"previous_response_id": "resp_1"}, Bypass.STATEFUL),
        ({"conversation": {"id": "c"}}, Bypass.STATEFUL),
        ({"web_search_options": {}}, Bypass.SERVER_TOOLS),
        ({"search_parameters": {"mode": "auto"}}, Bypass.SERVER_TOOLS),
        ({"tools": [{"type": "function", "function": {}}, {"type": "web_search"}]}, Bypass.SERVER_TOOLS),
        ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, Bypass.SERVER_TOOLS),
        ({"tools": "all"}, Bypass.SERVER_TOOLS),
        ({"tools": [1]}, Bypass.SERVER_TOOLS),
        ({"modalities": ["text", "audio"]}, Bypass.AUDIO),
        ({"audio": {"voice": "alloy"}}, Bypass.AUDIO),
        ({"previous_response_id": None, "audio": None, "tools": None, "modalities": ["text"]}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]}, None),
        ({"unheard_of": 1, "store": True, "seed": 4}, None),
    ],
)
def test_what_depends_on_more_than_its_words_is_asked(more: dict[str, Any], why: Bypass | None) -> None:
    """On what a provider has kept, looks up, or says aloud."""
    assert bypass(ZERO | more, CachePolicy(), SAYS_NOTHING) is why


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, Bypass.REMOTE),
        ({"type": "image_url", "image_url": {"url": "gs://a"}}, Bypass.REMOTE),
        ({"type": "input_image", "image_url": "http://example.com/a.png"}, Bypass.REMOTE),
        ({"type": "image_url", "image_url": {"url": "DATA:image/png;base64,AA"}}, None),
        ({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}, Bypass.REMOTE),
        ({"type": "file", "file": {"file_url": "https://example.com/a.pdf"}}, Bypass.REMOTE),
        ({"type": "file", "file": {"file_id": "file-1"}}, Bypass.STATEFUL),
        ({"type": "input_file", "file_id": "file-1"}, Bypass.STATEFUL),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}, None),
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, None),
    ],
)
def test_what_lies_elsewhere_may_be_another_thing_tomorrow(part: dict[str, Any], why: Bypass | None) -> None:
    """What stands in the question itself is a part of its key."""
    assert bypass(asked(part), CachePolicy(), SAYS_NOTHING) is why


def test_a_spoken_answer_before_is_a_name_that_expires() -> None:
    """It stands in a message of the assistant."""
    body = ZERO | {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}
    assert bypass(body, CachePolicy(), SAYS_NOTHING) is Bypass.AUDIO


@pytest.mark.parametrize("messages", [None, "hi", [1, None, {"content": 3}, {"content": [1, None]}]])
def test_odd_messages_are_no_matter_of_the_cache(messages: object) -> None:
    """Whoever answers says what is wrong with them."""
    assert bypass(ZERO | {"messages": messages}, CachePolicy(), SAYS_NOTHING) is None


@pytest.mark.parametrize("modalities", [True, 5, "text", {"text": 1}, ["text", "audio"]])
def test_odd_modalities_are_asked(modalities: object) -> None:
    """They may be anything; nobody knows what comes of them."""
    assert bypass({**ZERO, "modalities": modalities}, CachePolicy(), SAYS_NOTHING) is Bypass.AUDIO
    assert bypass({**ZERO, "modalities": ["text"]}, CachePolicy(), SAYS_NOTHING) is None
