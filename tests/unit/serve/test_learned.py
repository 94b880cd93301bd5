"""A call and what its provider says of its limits: the next one keeps to it."""

import pytest

from tiergate.core import Allowance, Allowances
from tiergate.serve import StreamReply, handle
from unit.serve.stage import REPLY, STREAM, A, Answer, B, House, run

NOTHING_LEFT = Allowances(requests=Allowance(1, 0, 60))


@pytest.mark.parametrize("streamed", [False, True])
def test_the_next_call_goes_elsewhere_when_an_answer_says_that_nothing_is_left(streamed: bool) -> None:
    """From the beginning of that answer on: a stream may take an hour."""
    answer = STREAM if streamed else REPLY
    house = House({"a": Answer(answer.steps, allowances=NOTHING_LEFT), "b": answer})

    async def main() -> None:
        replies = [
            await handle(house.rooms, house.call(id=name, streamed=streamed)) for name in ("one", "two")
        ]
        assert house.upstream.sent == [A, B]
        for reply in replies:
            if isinstance(reply, StreamReply):
                reply.close()

    run(house, main())
