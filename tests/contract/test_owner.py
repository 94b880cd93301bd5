"""One owner for each data folder, found by others, and gone when its process is gone."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tiergate.core import CannotStart, StoreOwned
from tiergate.store import LiveOwner, OwnerLock, find_owner

_OWNER = """
import sys
from pathlib import Path
from tiergate.store import OwnerLock

lock = OwnerLock.acquire(Path(sys.argv[1]))
if sys.argv[2:]:
    lock.publish(sys.argv[2], "the-token")
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, *address: str) -> Iterator[subprocess.Popen[str]]:
    """Let a process own the folder until it is killed, without a chance to clean up."""
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder), *address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    """While one process has the folder, others are told which it is, where it listens and what to do."""
    with another_process(tmp_path, "http://127.0.0.1:4400") as process:
        with pytest.raises(StoreOwned) as refused:
            OwnerLock.acquire(tmp_path)

        sentence = str(refused.value)
        assert f"process {process.pid}" in sentence
        assert "http://127.0.0.1:4400" in sentence
        assert "stop that process" in sentence
        assert "the-token" not in sentence


def test_a_process_cannot_own_a_folder_twice(tmp_path: Path) -> None:
    """The second lock of one process is refused as well, and the first one stands."""
    with OwnerLock.acquire(tmp_path):
        with pytest.raises(StoreOwned, match=f"process {os.getpid()}"):
            OwnerLock.acquire(tmp_path)
        with pytest.raises(StoreOwned):
            OwnerLock.acquire(tmp_path)
    OwnerLock.acquire(tmp_path).release()


def test_the_owner_is_found_where_it_listens(tmp_path: Path) -> None:
    """Others find its process, address and token; the token shows in no `repr`."""
    with another_process(tmp_path, "http://127.0.0.1:4400") as process:
        owner = find_owner(tmp_path)

        assert owner is not None
        assert (owner.pid, owner.address, owner.token) == (process.pid, "http://127.0.0.1:4400", "the-token")
        assert owner.started_ns is not None
        assert "the-token" not in repr(owner)


def test_an_owner_that_is_starting_is_alive_without_an_address(tmp_path: Path) -> None:
    """Before it has published anything, it is already the owner."""
    with another_process(tmp_path) as process:
        assert find_owner(tmp_path) == LiveOwner(pid=process.pid, address=None)
        with pytest.raises(StoreOwned, match="which is starting"):
            OwnerLock.acquire(tmp_path)


def test_a_killed_owner_is_gone_at_once(tmp_path: Path) -> None:
    """After SIGKILL the lock is free, and what the dead owner published is ignored and then removed."""
    with another_process(tmp_path, "http://127.0.0.1:4400") as process:
        process.kill()
        process.wait(10)
        assert (tmp_path / "owner.json").exists()
        assert find_owner(tmp_path) is None

        with OwnerLock.acquire(tmp_path):
            owner = find_owner(tmp_path)
            assert owner == LiveOwner(pid=os.getpid(), address=None)
            assert not (tmp_path / "owner.json").exists()


@pytest.mark.parametrize(
    "left",
    ["", "not json", "[]", "{}", '{"pid": 1, "address": "http://other", "token": "t", "started_ns": 1}'],
)
def test_an_address_counts_only_from_the_process_that_has_the_lock(tmp_path: Path, left: str) -> None:
    """A file that is broken, or of another process than the lock names, says nothing."""
    with OwnerLock.acquire(tmp_path):
        (tmp_path / "owner.json").write_text(left)
        assert find_owner(tmp_path) == LiveOwner(pid=os.getpid(), address=None)


def test_nobody_owns_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Looking for an owner makes neither folder nor file."""
    assert find_owner(tmp_path / "none") is None
    assert find_owner(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_published_is_private_and_goes_with_the_owner(tmp_path: Path) -> None:
    """`owner.json` has mode 0600, is replaced as a whole, and is removed on release; the lock file stays."""
    lock = OwnerLock.acquire(tmp_path)
    lock.publish("http://127.0.0.1:1", "first")
    lock.publish("http://127.0.0.1:2", "second")

    path = tmp_path / "owner.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["token"] == "second"
    assert {file.name for file in tmp_path.iterdir()} == {"owner.json", "owner.lock"}
    lock.release()
    lock.release()
    assert {file.name for file in tmp_path.iterdir()} == {"owner.lock"}
    assert find_owner(tmp_path) is None


def test_looking_does_not_keep_an_owner_out(tmp_path: Path) -> None:
    """However often others look, a free folder can be owned."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            find_owner(tmp_path)
            done.wait(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(100):
            OwnerLock.acquire(tmp_path).release()
    finally:
        done.set()
        watcher.join()


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """The data folder is made with mode 0700, its lock with 0600."""
    folder = tmp_path / "deep" / "data"
    with OwnerLock.acquire(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "owner.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("folder", ["/proc/tiergate-data", "/proc/self", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_refused_in_a_sentence(folder: str) -> None:
    """No folder can be made, no file can be made in it, or it is no folder: the sentence says so."""
    with pytest.raises(CannotStart, match=r"cannot be (made|written|used)"):
        OwnerLock.acquire(Path(folder))
