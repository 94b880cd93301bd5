"""Replies kept for the same request: only where they are certain to be the same, and only for a second."""

import asyncio

import pytest

from tiergate.capacity import EngineModel
from tiergate.testing import Behaviour, Ended, FakeClock, Rule, Script, When, run_virtual
from tiergate.testing.ask import ask_of
from tiergate.testing.stage import Stage

ASK = ask_of({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
REQUEST = b"the bytes of a request"


def replayed(script: Script, *, after_s: float = 0.0) -> tuple[bytes | None, Stage]:
    """Answer a request, offer its reply to be kept, and ask for the same again."""
    clock = FakeClock()

    async def main() -> tuple[bytes | None, Stage]:
        stage = Stage(script, asyncio.get_running_loop(), clock)
        assert stage.replay(REQUEST, 1) is None
        scene = stage.open(lambda: ASK, path="/v1/chat/completions", headers={})
        scene.finish(Ended.COMPLETED)
        stage.keep(scene, REQUEST, b"id-000000000001 and again 000000000001")
        clock.advance(after_s)
        return stage.replay(REQUEST, 2), stage

    return run_virtual(main(), clock=clock)


def test_a_kept_reply_gets_a_new_number_and_an_entry_of_its_own() -> None:
    """Everywhere the number stood; the log cannot tell it from any other answer."""
    reply, stage = replayed(Script(default=Behaviour(words=5)))

    assert reply == b"id-000000000002 and again 000000000002"
    first, second = stage.log.entries()
    assert (second.number, second.connection, second.tokens, second.ended) == (2, 2, 5, Ended.COMPLETED)
    assert (second.model, second.prompt_tokens) == (first.model, first.prompt_tokens)
    assert stage.statistics().output_tokens == 10


def test_it_is_forgotten_with_the_second() -> None:
    """Replies carry the date."""
    assert replayed(Script(), after_s=0.9)[0] is not None
    assert replayed(Script(), after_s=1.0)[0] is None


@pytest.mark.parametrize(
    "script",
    [
        Script(rules=(Rule(when=When(nth=2), then=Behaviour(status=500)),)),
        Script(rpm=1),
        Script(engine=EngineModel()),
        Script(default=Behaviour(error_rate=0.5)),
        Script(default=Behaviour(truncate_rate=0.5)),
    ],
)
def test_nothing_is_kept_where_the_next_answer_may_be_another(script: Script) -> None:
    """Rules, limits, engines and chance look at every single request."""
    assert replayed(script)[0] is None
