"""Numbers in a mapped file: they outlive a kill, there is always room, and a full disk is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.core import StorageUnavailable
from tiergate.store.slots import Slots


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "asked"


def left_in(path: Path) -> list[int]:
    """The numbers that the next one finds."""
    slots = Slots(path)
    slots.close()
    return sorted(slots.found)


def ran(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, path], capture_output=True, text=True, check=False, timeout=60
    )


def test_what_was_begun_and_not_ended_is_found(path: Path) -> None:
    """Each once, however often it was begun; what was ended is not there."""
    slots = Slots(path)
    assert slots.found == ()
    for number in (1, 2, 3, 2**40, 2, 2):
        slots.begin(number)
    for number in (1, 9):
        slots.end(number)
    slots.close()
    assert left_in(path) == [2, 3, 2**40]


def test_what_was_found_stays_until_it_is_forgotten(path: Path) -> None:
    """The next one finds it again, should this one die before that."""
    first = Slots(path)
    first.begin(7)
    first.close()
    second = Slots(path)
    assert second.found == (7,)
    second.close()
    third = Slots(path)
    third.clear()
    third.close()
    assert left_in(path) == []


def test_the_numbers_of_a_process_that_was_killed_are_found(path: Path) -> None:
    """It said nothing to anybody."""
    text = """
import os, signal, sys
from pathlib import Path
from tiergate.store.slots import Slots

slots = Slots(Path(sys.argv[1]))
for number in range(1, 1_501):
    slots.begin(number)
for number in range(1, 1_498):
    slots.end(number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert ran(text, path).returncode == -9
    assert left_in(path) == [1_498, 1_499, 1_500]


def test_there_is_room_for_any_count(path: Path) -> None:
    """It grows, and a place that became free is used again."""
    slots = Slots(path)
    size = path.stat().st_size
    for number in range(1, 2_001):
        slots.begin(number)
        slots.end(number)
    assert path.stat().st_size == size
    for number in range(1, 2_001):
        slots.begin(number)
    slots.close()
    assert size < path.stat().st_size <= 8 * size
    assert left_in(path) == list(range(1, 2_001))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1_200)), max_size=60))
def test_the_file_holds_what_is_under_way(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    """After any beginnings and ends, with a growth between them."""
    path = tmp_path_factory.mktemp("slots") / "asked"
    slots, expected = Slots(path), set(range(10_000, 10_500))
    for number in expected:
        slots.begin(number)
    for is_begun, number in steps:
        (slots.begin if is_begun else slots.end)(number)
        (expected.add if is_begun else expected.discard)(number)
    slots.close()
    assert left_in(path) == sorted(expected)


def test_its_room_is_on_the_disk_before_it_is_used(path: Path) -> None:
    """Else a full disk would not be told: the kernel ends whoever writes into a page that has none."""
    slots = Slots(path)
    found = path.stat()
    slots.close()
    assert found.st_blocks * 512 >= found.st_size > 0


def test_a_full_disk_is_told_and_what_stands_there_stays(path: Path) -> None:
    """No more are begun; once some have ended there is room again."""
    text = """
import resource, sys
from pathlib import Path
from tiergate.core import StorageUnavailable
from tiergate.store.slots import Slots

path = Path(sys.argv[1])
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
slots = Slots(path)
for number in range(1, 600):
    try:
        slots.begin(number)
    except StorageUnavailable:
        break
print(number)
slots.end(1)
slots.begin(1_000)
try:
    slots.begin(1_001)
except StorageUnavailable:
    print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
try:
    Slots(Path(sys.argv[1] + "-other"))
except StorageUnavailable:
    print("no other")
resource.setrlimit(resource.RLIMIT_FSIZE, before)
slots.begin(1_001)
slots.close()
"""
    child = ran(text, path)
    assert child.stdout.splitlines() == ["513", "full", "no other"], child.stderr
    assert left_in(path) == [*range(2, 513), 1_000, 1_001]


def test_a_link_in_the_way_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Nothing outside is written."""
    (tmp_path / "outside").write_bytes(b"kept")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageUnavailable):
        Slots(path)
    assert (tmp_path / "outside").read_bytes() == b"kept"


def test_a_file_of_an_odd_length_is_read_as_far_as_it_goes(path: Path) -> None:
    """Its last number was not written whole."""
    path.write_bytes((5).to_bytes(8, sys.byteorder) + b"\1\2\3")
    slots = Slots(path)
    assert slots.found == (5,)
    slots.clear()
    slots.begin(6)
    slots.close()
    assert left_in(path) == [6]
