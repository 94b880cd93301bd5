"""Spools: what is written is read back, and nothing behind a record that is not whole."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tiergate.batch import Finished
from tiergate.ledger import LineState
from tiergate.store.spool import read_records, write_record

AMOUNTS = st.integers(0, 2**53)
ENDS = st.builds(
    Finished,
    n=st.integers(1, 2**40),
    state=st.sampled_from([LineState.DONE, LineState.FAILED, LineState.CANCELLED]),
    output=st.binary(max_size=80),
    error_code=st.none() | st.text(max_size=10),
    call_id=st.none() | st.text(max_size=10),
    attempt=st.integers(0, 9),
    input_tokens=AMOUNTS,
    cached_tokens=AMOUNTS,
    output_tokens=AMOUNTS,
    cash_nanos=AMOUNTS,
    is_hit=st.booleans(),
)
ONE = Finished(n=1, state=LineState.DONE, output=b"one\n")


def spooled(ends: list[Finished]) -> tuple[bytes, list[int]]:
    """Ends one behind the other, and the place behind each."""
    records = [write_record(end).data for end in ends]
    places = [sum(map(len, records[:count])) for count in range(1, len(records) + 1)]
    return b"".join(records), places


def read_back(data: bytes, *, at: int = 0) -> list[Finished]:
    """The ends in a piece of a spool, each with its output, read from where it is said to stand."""
    ends = []
    for read in read_records(data, at=at):
        output = data[read.offset - at :][: read.bytes]
        facts = {name: getattr(read.finished, name) for name in Finished.__struct_fields__}
        assert facts.pop("output") == b""
        ends.append(Finished(**facts, output=output))
    return ends


@given(st.lists(ENDS, max_size=6), st.integers(0, 2**40))
def test_what_is_written_is_read_back(ends: list[Finished], at: int) -> None:
    """Whatever it is, and wherever the piece begins."""
    data, places = spooled(ends)
    assert read_back(data, at=at) == ends
    assert [read.end - at for read in read_records(data, at=at)] == places


@given(ENDS)
def test_an_output_stands_where_its_writer_says(end: Finished) -> None:
    """Nobody needs to read the record to read it."""
    data, output_at = write_record(end)
    assert data[output_at:] == end.output


@given(st.lists(ENDS, min_size=1, max_size=3))
def test_a_spool_that_is_cut_off_holds_its_whole_records(ends: list[Finished]) -> None:
    """At every byte; each of those that end before it, and no other."""
    data, places = spooled(ends)
    for cut in range(len(data) + 1):
        whole = sum(place <= cut for place in places)
        assert read_back(data[:cut]) == ends[:whole]


@given(st.lists(ENDS, min_size=1, max_size=4), st.data())
def test_a_byte_that_is_another_ends_the_reading(ends: list[Finished], draw: st.DataObject) -> None:
    """Those before it are read; neither its record nor what follows is."""
    data, places = spooled(ends)
    where = draw.draw(st.integers(0, len(data) - 1))
    other = bytearray(data)
    other[where] ^= draw.draw(st.integers(1, 255))
    whole = sum(place <= where for place in places)
    assert read_back(bytes(other)) == ends[:whole]


def test_every_byte_of_a_record_is_looked_at() -> None:
    """Also one of its head; another record behind it is not read."""
    data, (first, _) = spooled([ONE, ONE])
    for where in range(first):
        for change in (1, 128, 255):
            other = bytearray(data)
            other[where] ^= change
            assert read_back(bytes(other)) == []


def test_records_that_were_overwritten_with_nothing_are_none() -> None:
    """As a file may be after a loss of power: longer than what was written."""
    data, places = spooled([ONE, ONE, ONE])
    for begins, ends in pairwise([0, *places]):
        emptied = data[:begins] + bytes(ends - begins) + data[ends:]
        assert len(read_back(emptied)) == places.index(ends)
    assert read_back(data + bytes(4096)) == [ONE, ONE, ONE]
