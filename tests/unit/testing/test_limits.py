"""The mock's limits: of each model, filled bit by bit, and told as OpenAI tells them."""

import asyncio

import pytest

from tiergate.core import Allowance, Allowances, SettingsError, Target, Tier, UpstreamThrottled
from tiergate.serve import Question
from tiergate.testing import Behaviour, FakeClock, Limits, Script, ScriptedUpstream, run_virtual
from tiergate.testing.limits import Allowing


def test_a_script_may_limit_requests_and_tokens_of_each_model() -> None:
    """An unknown key is refused, and a limit of nothing."""
    assert Script.from_yaml("limits: {rpm: 60, tpm: 1000}").limits == Limits(rpm=60, tpm=1_000)
    with pytest.raises(SettingsError, match=r"script\.limits\.rpm"):
        Script.from_yaml("limits: {rpm: 0}")
    with pytest.raises(SettingsError, match="unknown key 'tpd'"):
        Script.from_yaml("limits: {tpd: 1}")


def test_what_is_too_much_is_refused_until_it_has_come_back() -> None:
    """A refusal takes nothing."""
    allowing = Allowing(Limits(rpm=60))
    assert [allowing.ask("m", 1, 0.0).wait_s for _ in range(60)] == [0.0] * 60
    assert allowing.ask("m", 1, 0.0).wait_s == pytest.approx(1)
    assert allowing.ask("m", 1, 0.5).wait_s == pytest.approx(0.5)
    assert allowing.ask("other", 1, 0.5).wait_s == 0
    assert allowing.ask("m", 1, 1.0).wait_s == 0


def test_headers_tell_the_limit_what_is_left_and_when_all_of_it_is() -> None:
    """In OpenAI's words."""
    allowing = Allowing(Limits(rpm=10, tpm=600))
    assert allowing.ask("m", 5, 0.0).headers == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "6s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "595",
        "x-ratelimit-reset-tokens": "500ms",
    }
    for _ in range(9):
        allowing.ask("m", 0, 0.0)
    refused = allowing.ask("m", 0, 0.0)
    assert refused.wait_s == pytest.approx(6)
    assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"


def test_both_mocks_answer_with_them_and_the_output_that_is_allowed_counts() -> None:
    """Whether it is used or not; an answer without a limit counts as long as it is."""
    clock = FakeClock()

    def question(**more: int) -> Question:
        return Question(
            call_id="c",
            target=Target(provider="p", model="m", tier=Tier.HOSTED),
            body={"messages": [{"role": "user", "content": "12345678"}], **more},
            streamed=False,
            deadline=clock.monotonic() + 60,
            first_event_s=60,
            idle_s=60,
            mark_sent=lambda: None,
        )

    async def main() -> None:
        script = Script(default=Behaviour(reply="one two three"), limits=Limits(tpm=600))
        upstream = ScriptedUpstream(script, clock=clock)
        exchange = await upstream.send(question(max_tokens=498))
        assert exchange.allowances == Allowances(tokens=Allowance(600, 100, 50))
        exchange = await upstream.send(question())
        assert exchange.allowances == Allowances(tokens=Allowance(600, 95, 50.5))
        with pytest.raises(UpstreamThrottled) as refusal:
            await upstream.send(question(max_tokens=500))
        assert refusal.value.retry_after_s == pytest.approx(40.7)
        assert refusal.value.allowances == Allowances(tokens=Allowance(600, 95, 50.5))
        await asyncio.sleep(41)
        assert await upstream.send(question(max_tokens=500))

    run_virtual(main(), clock=clock)
