"""The shared nouns: what they derive, and that nobody can change them."""

from dataclasses import is_dataclass

import msgspec
import pytest

from tiergate import core
from tiergate.core import (
    LOCAL,
    Caller,
    Chunk,
    DataClass,
    Origin,
    Reply,
    SystemClock,
    Target,
    Tier,
    Usage,
    new_id,
)

TARGET = Target(provider="rack", model="deepseek-ai/DeepSeek-V3.2", tier=Tier.PRIVATE)


@pytest.mark.parametrize(
    ("one", "other", "stricter"),
    [
        (DataClass.ANY, DataClass.ANY, DataClass.ANY),
        (DataClass.ANY, DataClass.PRIVATE_ONLY, DataClass.PRIVATE_ONLY),
        (DataClass.PRIVATE_ONLY, DataClass.ANY, DataClass.PRIVATE_ONLY),
        (DataClass.PRIVATE_ONLY, DataClass.PRIVATE_ONLY, DataClass.PRIVATE_ONLY),
    ],
)
def test_the_strictest_data_class_wins(one: DataClass, other: DataClass, stricter: DataClass) -> None:
    """Whichever side says it."""
    assert one.stricter(other) is stricter


def test_the_tenant_is_the_team_and_without_a_team_the_key() -> None:
    """Keys of one team share; two keys without a team share nothing."""
    assert Caller(key="ci", team="web").tenant == Caller(key="bot", team="web").tenant == "web"
    assert Caller(key="ci").tenant == "ci"
    assert LOCAL.tenant == "local"


def test_a_target_is_named_by_provider_and_upstream_name() -> None:
    """Slashes in the upstream's name stay."""
    assert TARGET.name == "rack/deepseek-ai/DeepSeek-V3.2"


def test_every_bucket_of_a_usage_counts_in_exactly_one_sum() -> None:
    """One token in any bucket is one token in all; images are no tokens."""
    sides = {}
    for bucket in Usage.__struct_fields__:
        usage = Usage(**{bucket: 1})
        sides[bucket] = (usage.input_tokens, usage.output_tokens)
        assert usage.total_tokens == sum(sides[bucket])
    assert sides.pop("images") == (0, 0)
    outputs = {"output", "reasoning", "audio_out"}
    assert {name for name, side in sides.items() if side == (0, 1)} == outputs
    assert {name for name, side in sides.items() if side == (1, 0)} == sides.keys() - outputs


def test_a_reply_of_unknown_price_has_no_cost_and_one_of_our_own_costs_zero() -> None:
    """Unknown is None and never zero."""
    origin = Origin(call_id="c", target=TARGET, attempts=1)

    def reply(cash_nanos: int | None) -> Reply:
        return Reply(origin=origin, data=b"{}", text="", finish=(), usage=Usage(), cash_nanos=cash_nanos)

    assert reply(None).cost_usd is None
    assert reply(0).cost_usd == 0
    assert (reply(0).target, reply(0).tier) == ("rack/deepseek-ai/DeepSeek-V3.2", "private")


def test_values_are_frozen() -> None:
    """Every value of the room is a frozen structure; a chunk is a tuple."""
    values = [one for one in vars(core).values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    assert len(values) >= 10
    assert not any(map(is_dataclass, vars(core).values()))
    for value in values:
        assert value.__struct_config__.frozen, value
    with pytest.raises(AttributeError):
        TARGET.model = "other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(AttributeError):
        Chunk(b"").data = b"other"  # type: ignore[misc]  # the point of the test


def test_ids_sort_by_time_and_differ_by_chance() -> None:
    """26 letters of Crockford's alphabet; a later millisecond sorts later whatever the chance was."""
    early, late = new_id(1_000_000, b"\xff" * 10), new_id(2_000_000, b"\x00" * 10)
    assert early < late
    assert len(early) == len(late) == 26
    assert set(early) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert new_id(0, b"\x00" * 10) == "0" * 26
    assert new_id(0, b"\x00" * 9 + b"\x1f") == "0" * 25 + "z"


def test_the_system_clock_counts_nanoseconds_and_never_goes_back() -> None:
    """Both of its times move in the right direction and unit."""
    clock = SystemClock()
    before, wall_ns = clock.monotonic(), clock.wall_ns()
    assert clock.monotonic() >= before
    assert wall_ns > 1_700_000_000_000_000_000
