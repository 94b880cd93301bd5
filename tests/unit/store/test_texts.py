"""Files of text: under names that lead nowhere else, written whole or not at all."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tiergate.core import StorageUnavailable
from tiergate.store.texts import Texts

BAD_NAMES = [
    *("", ".", "..", "/", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/b/c", "a/", "/a", "a/.b", ".a"),
    *("a\0b", "a\n", "a b", "A", "ä", "a\\b", "~", "%2e%2e", "a" * 65, "a/" + "b" * 65, "s1/1\n"),
]
USES: dict[str, Callable[[Texts, str], Any]] = {
    "append": lambda texts, name: texts.append(name, b"x"),
    "read": lambda texts, name: texts.read(name, 0, 9),
    "size": lambda texts, name: texts.size(name),
    "folder": lambda texts, name: texts.folder(name),
    "list": lambda texts, name: texts.list(name),
    "truncate": lambda texts, name: texts.truncate(name, 0),
    "sync": lambda texts, name: texts.sync(name),
    "delete": lambda texts, name: texts.delete(name),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "texts"


@pytest.fixture
def texts(folder: Path) -> Texts:
    return Texts(folder)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_names_that_lead_elsewhere_are_not_used(
    texts: Texts, tmp_path: Path, use: Callable[[Texts, str], Any]
) -> None:
    """Nothing is made, read or deleted outside."""
    (tmp_path / "x").write_bytes(b"kept")
    for name in BAD_NAMES:
        with pytest.raises(AssertionError, match="names are made here"):
            use(texts, name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["texts", "x"]
    assert (tmp_path / "x").read_bytes() == b"kept"


def test_it_is_written_at_its_end_and_read_anywhere(texts: Texts) -> None:
    """Also while it is open, and after it was closed."""
    assert texts.append("files/a", b"abc") == 0
    assert texts.append("files/a", b"defg") == 3
    for _ in ("open", "closed"):
        assert [texts.read("files/a", at, 3) for at in (0, 2, 6, 7, 99)] == [b"abc", b"cde", b"g", b"", b""]
        assert texts.size("files/a") == 7
        texts.close("files/a")
    assert texts.append("files/a", b"h") == 7
    assert texts.read("files/a", 0, 99) == b"abcdefgh"
    texts.close_all()


def test_what_is_not_there_is_empty(texts: Texts) -> None:
    """And may be deleted."""
    assert texts.read("files/a", 0, 9) == b""
    assert texts.size("files/a") == 0
    assert texts.list("s1") == []
    texts.delete("files/a")
    texts.delete("s1")
    texts.close("files/a")


def test_names_that_are_numbers_are_listed_in_their_order(texts: Texts) -> None:
    """Others are left out."""
    for name in ("10", "9", "asked", "100"):
        texts.append(f"s1/{name}", b"x")
    assert texts.list("s1") == [9, 10, 100]
    texts.close_all()


def test_all_under_a_name_is_deleted_with_it(texts: Texts, folder: Path) -> None:
    """Open files, too; what only begins alike is kept."""
    for name in ("s1/1", "s1/2", "s11/1"):
        texts.append(name, b"x")
    texts.delete("s1")
    assert [path.name for path in folder.iterdir()] == ["s11"]
    assert texts.append("s1/1", b"new") == 0
    texts.delete("s1/1")
    assert texts.list("s1") == []
    assert texts.append("s11/1", b"y") == 1
    texts.close_all()


@pytest.mark.parametrize("leads_to", ["file", "nothing", "full disk"])
def test_a_link_in_the_way_is_not_followed(texts: Texts, folder: Path, tmp_path: Path, leads_to: str) -> None:
    """Neither written through, nor read through; it is deleted, and not what it leads to."""
    outside = Path("/dev/full") if leads_to == "full disk" else tmp_path / "outside"
    if leads_to == "file":
        outside.write_bytes(b"kept")
    (folder / "files").mkdir()
    link = folder / "files" / "a"
    link.symlink_to(outside)
    for use in (USES["append"], USES["read"], USES["sync"]):
        with pytest.raises(StorageUnavailable):
            use(texts, "files/a")
    texts.delete("files/a")
    assert not link.is_symlink()
    assert outside.exists() is (leads_to != "nothing")
    if leads_to == "file":
        assert outside.read_bytes() == b"kept"


def test_a_link_in_place_of_a_folder_is_deleted_and_not_what_it_leads_to(
    texts: Texts, folder: Path, tmp_path: Path
) -> None:
    """As far as deleting goes."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "1").write_bytes(b"kept")
    (folder / "s1").symlink_to(tmp_path / "outside")
    texts.delete("s1")
    assert list(folder.iterdir()) == []
    assert (tmp_path / "outside" / "1").read_bytes() == b"kept"


def test_a_write_that_fails_leaves_nothing_behind(folder: Path) -> None:
    """Not the half that there was room for; it goes on where it stood."""
    text = """
import resource, sys
from pathlib import Path
from tiergate.core import StorageUnavailable
from tiergate.store.texts import Texts

texts = Texts(Path(sys.argv[1]))
texts.append("s1/1", b"first")
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
for _ in range(2):
    try:
        texts.append("s1/1", b"second")
    except StorageUnavailable:
        print("refused at", texts.size("s1/1"))
resource.setrlimit(resource.RLIMIT_FSIZE, before)
print(texts.append("s1/1", b"third"), texts.read("s1/1", 0, 99))
"""
    ran = subprocess.run(
        [sys.executable, "-c", text, folder], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.splitlines() == ["refused at 5", "refused at 5", "5 b'firstthird'"], ran.stderr


def test_a_folder_that_takes_nothing_is_told(texts: Texts, folder: Path) -> None:
    """A file stands in its place."""
    (folder / "s1").write_bytes(b"")
    for use in (
        lambda: texts.append("s1/1", b"x"),
        lambda: texts.folder("s1"),
        lambda: texts.truncate("s1/1", 0),
        lambda: texts.sync("s1/1"),
        lambda: texts.read("s1/1", 0, 9),
    ):
        with pytest.raises(StorageUnavailable):
            use()


def test_deleting_disturbs_nobody_who_opens_others_meanwhile(texts: Texts) -> None:
    """Spools are written in another thread than the one that deletes."""
    is_over = Event()

    def open_others() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            texts.append(f"s2/{number % 50}", b"x")
            texts.close(f"s2/{number % 50}")

    other = Thread(target=open_others)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(300):
            texts.append(f"s3/{number}", b"x")
        other.start()
        for _ in range(6_000):
            texts.delete("s1")
    finally:
        sys.setswitchinterval(before)
        is_over.set()
        other.join()
        texts.close_all()


def test_files_are_their_owners_alone(texts: Texts, folder: Path) -> None:
    """Whatever the mask of the process says."""
    before = os.umask(0)
    try:
        texts.append("s1/1", b"x")
        texts.folder("s2")
    finally:
        os.umask(before)
    texts.close_all()
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {"s1": 0o700, "1": 0o600, "s2": 0o700}
