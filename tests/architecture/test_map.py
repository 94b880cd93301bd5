"""The map of the house: its rooms, their sentences, what they show, and which way they look."""

import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["id"]: contract for contract in SETTINGS["tool"]["importlinter"]["contracts"]}
ROOMS = sorted(room for layer in CONTRACTS["layers"]["layers"] for room in layer.replace("|", " ").split())


def opened(room: str) -> ModuleType:
    return importlib.import_module(f"tiergate.{room}")


def sentence_of(room: str) -> str:
    return opened(room).__doc__ or ""


def test_rooms_look_downward_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contract of `pyproject.toml` is kept: layers, deciding rooms without I/O, no cycles."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "src"))
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out
    assert CONTRACTS["layers"]["exhaustive"] is True


def test_there_are_23_rooms_and_one_toolbox() -> None:
    """The folders are the rooms of the map, and nothing lies beside them."""
    house = ROOT / "src" / "tiergate"
    folders = sorted(path.name for path in house.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert folders == ROOMS
    assert len(ROOMS) == 23 + 1
    assert {path.name for path in house.iterdir() if path.is_file()} <= {"__init__.py", "py.typed"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_one_sentence_what_it_is_for(room: str) -> None:
    """One line that begins with a capital and ends with a full stop."""
    sentence = sentence_of(room)
    assert re.fullmatch(r"[A-Z][^\n]*[^.\n]\.", sentence), sentence
    assert not re.search(r"[.?!] [A-Z]", sentence)


def test_the_map_says_what_the_rooms_say() -> None:
    """ARCHITECTURE.md repeats each room's sentence, and marks those that hold nothing else yet."""
    rows = re.findall(
        r"^\| \d+ \| `(\w+)`( ○)? \| (.+) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    assert sorted(room for room, _, _ in rows) == ROOMS
    for room, empty, said in rows:
        assert said.startswith(sentence_of(room)), room
        code = [path.name for path in (ROOT / "src/tiergate" / room).rglob("*.py")]
        assert (code == ["__init__.py"]) is bool(empty), room


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_shows_what_it_lists(room: str) -> None:
    """`__all__` is everything that can be seen from outside, besides the modules inside."""
    module = opened(room)
    visible = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not (isinstance(value, ModuleType) and value.__name__.startswith(module.__name__))
    }
    assert visible == set(getattr(module, "__all__", ()))


@pytest.mark.parametrize("room", ROOMS)
def test_the_list_of_a_room_is_sorted(room: str) -> None:
    """As ruff sorts it: constants, then classes, then functions."""
    listed = list(getattr(opened(room), "__all__", ()))

    def place(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    assert listed == sorted(listed, key=place)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_door_holds_nothing_but_its_sentence_and_its_list(room: str) -> None:
    """No code lives in an `__init__.py`."""
    source = (ROOT / "src/tiergate" / room / "__init__.py").read_text()
    statements = re.sub(
        r'^""".*?"""\n|^from [\w.]+ import (\([^)]*\)|[^\n]*)$|^__all__ = \[[^\]]*\]',
        "",
        source,
        flags=re.DOTALL | re.MULTILINE,
    )
    assert not statements.strip(), statements
