"""The lock files: every package with its hashes, and above what is known to be bad."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
FLOORS = {
    "starlette": (1, 3, 0),
    "aiohttp": (3, 14, 4),
    "urllib3": (2, 6, 3),
    "redis": (4, 5, 4),
}
"""First versions without the known advisories that reach us."""

ENTRY = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][\w.]*)(?: ; .+?)?( --hash=sha256:[0-9a-f]{64})+"
)


def entries(lock: Path) -> dict[str, str]:
    """Version by package; whatever is no package with a version and hashes is an error."""
    text = re.sub(r"\s*#.*", "", lock.read_text())
    lines = [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]
    found = [ENTRY.fullmatch(line) for line in lines]
    assert all(found), [line for line, entry in zip(lines, found, strict=True) if not entry]
    return {entry["name"]: entry["version"] for entry in found if entry}


def release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def test_the_lock_files_are_there() -> None:
    """One for running, one for building, one for developing."""
    assert {"base.txt", "build.txt", "dev.txt"} <= {lock.name for lock in LOCKS}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_locked_by_hash(lock: Path) -> None:
    """And no line says where to get it from."""
    assert entries(lock)
    assert not re.search(
        r"^\s*(-i|--(extra-)?index-url|--find-links|--trusted-host)|https?://", lock.read_text(), re.MULTILINE
    )


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_package_is_below_what_is_known_to_be_bad(lock: Path) -> None:
    """S42: floors that need no network to check."""
    for package, version in entries(lock).items():
        assert release(version) >= FLOORS.get(package, ()), f"{package} {version}"


def test_the_floors_are_floors() -> None:
    """Versions are compared as numbers."""
    assert release("3.14.4") >= FLOORS["aiohttp"] > release("3.14.3") > release("3.9.5")
    assert release("1.10.0") > FLOORS["starlette"] > release("1.2.9")


def test_what_the_package_asks_for_is_locked() -> None:
    """Every dependency stands in the lock for running, and what develops with it has the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, dev = entries(ROOT / "requirements/base.txt"), entries(ROOT / "requirements/dev.txt")
    for dependency in project["dependencies"]:
        asked, _, least = dependency.partition(">=")
        assert release(base[asked.lower()]) >= release(least), dependency
    assert {package: dev[package] for package in base.keys() & dev.keys()} == {
        package: base[package] for package in base.keys() & dev.keys()
    }
