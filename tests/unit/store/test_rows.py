"""Records to rows: what comes from outside is cut to the room that waits for it."""

from contract.ledger_records import closed, settled
from tiergate.store.rows import (
    ERROR_CODE_CHARS,
    FINISH_REASONS_CHARS,
    REPLICA_CHARS,
    REQUEST_ID_CHARS,
    SERVICE_TIER_CHARS,
    close_row,
    settle_row,
    tame,
)


def test_texts_of_an_upstream_are_cut_to_their_room() -> None:
    """However long or foreign, they are ASCII and no longer than the row allows."""
    row = settle_row(
        settled(
            1,
            replica="r" * 500,
            error_code="é" * 500,
            upstream_request_id="\N{GRINNING FACE}" * 500,
            service_tier="\ud800" * 500,
        ),
        epoch=1,
    )

    texts = [row[1], row[7], row[21], row[22]]
    room = [REPLICA_CHARS, ERROR_CODE_CHARS, REQUEST_ID_CHARS, SERVICE_TIER_CHARS]
    assert [len(text) for text in texts] == room
    assert all(text.isascii() for text in texts)


def test_short_texts_stay_as_they_are() -> None:
    """What fits is kept to the letter."""
    row = settle_row(settled(1), epoch=1)

    assert (row[1], row[21], row[22]) == ("api.deepseek.com:443", "req-0123456789", "default")


def test_many_finish_reasons_are_kept_once_each() -> None:
    """A call with n = 128 ends with 128 reasons; those that differ are kept, within the room."""
    row = close_row(closed(1, finish_reasons=("stop",) * 127 + ("length",)), epoch=1)
    assert row[-3] == "stop,length"

    row = close_row(closed(1, finish_reasons=tuple(f"reason-{n}" for n in range(128))), epoch=1)
    assert len(row[-3]) == FINISH_REASONS_CHARS


def test_taming_forces_only_what_cannot_be_written() -> None:
    """No number is below 0 or too large to be added up, halves of surrogate pairs are spelled out."""
    assert tame((2**80, -5, 7, "gut", "\ud800", None, True)) == (
        10**15,
        0,
        7,
        "gut",
        "\\ud800",
        None,
        True,
    )
