"""A spool: ends of lines one after the other in a file, each with what it took and a checksum.

What stands in it outlives the process as soon as it is written. A record that was cut off by a crash, or by a
full disk, is told by its checksum, and nothing follows it: whoever died wrote nothing any more, and whoever
lives takes back what it could not write whole.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from tiergate.batch import Finished

_HEAD: Final = struct.Struct("<4sIII")
"""A mark, the checksum of the rest, and the lengths of its two parts."""
_MARK: Final = b"TGL1"
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Finished).decode


class Record(NamedTuple):
    """One end in bytes, and where its output begins in them."""

    data: bytes
    output_at: int


class Read(NamedTuple):
    """One end that was read back, without its output, and where that stands."""

    finished: Finished
    offset: int
    bytes: int
    end: int


def write_record(finished: Finished) -> Record:
    """Write one end."""
    facts = _encode(msgspec.structs.replace(finished, output=b""))
    body = facts + finished.output
    head = _HEAD.pack(_MARK, crc32(body), len(facts), len(finished.output))
    return Record(head + body, _HEAD.size + len(facts))


def read_records(data: bytes, *, at: int) -> Iterator[Read]:
    """Read the ends in a piece of a spool that begins at `at`, up to its end or to one that was cut off."""
    place = 0
    while place + _HEAD.size <= len(data):
        mark, checksum, facts_bytes, output_bytes = _HEAD.unpack_from(data, place)
        begins = place + _HEAD.size
        ends = begins + facts_bytes + output_bytes
        if mark != _MARK or ends > len(data) or crc32(data[begins:ends]) != checksum:
            return
        yield Read(
            finished=_decode(data[begins : begins + facts_bytes]),
            offset=at + begins + facts_bytes,
            bytes=output_bytes,
            end=at + ends,
        )
        place = ends
