"""Finds the settings file, reads it with its `.env`, and gives settings or every problem at once."""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from tiergate.config import pending
from tiergate.config.contradictions import advice, contradictions
from tiergate.config.document import LARGEST_BYTES, Document, Filling, read
from tiergate.config.environment import parse_env
from tiergate.config.explain import explain
from tiergate.config.problems import Path as Place
from tiergate.config.problems import Problem
from tiergate.config.settings import Settings
from tiergate.core import SettingsError

DEFAULT_FILE: Final = "tiergate.yaml"
VARIABLE: Final = "TIERGATE_CONFIG"

_MOST_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, where they came from, and what an operator should know about them."""

    settings: Settings
    path: Path | None
    notices: tuple[str, ...]


def load(path: Path | None, environ: Mapping[str, str], *, folder: Path = Path()) -> Loaded:
    """Load the settings file.

    Args:
        path: the file; None looks at `TIERGATE_CONFIG`, then for `tiergate.yaml` in `folder`.
        environ: the environment; it wins over `.env` beside the file.
        folder: the working directory.

    Raises:
        SettingsError: no file, or everything that is wrong with it, one sentence each.
    """
    found = find_file(path, environ, folder=folder)
    if found is None:
        raise SettingsError((_NO_FILE,))
    text = _read_text(found)
    from_env, notices = read_env(found.parent)
    loaded = load_text(text, {**from_env, **environ}, name=str(found))
    # Wherever a command is run from, the same file means the same ledger.
    data_dir = found.parent / loaded.settings.data_dir
    settings = loaded.settings.model_copy(update={"data_dir": data_dir})
    return Loaded(settings=settings, path=found, notices=notices + loaded.notices)


def load_text(text: str, environ: Mapping[str, str], *, name: str = DEFAULT_FILE) -> Loaded:
    """Load settings from a text.

    Args:
        text: YAML as in a settings file.
        environ: what `${NAME}` is filled from.
        name: how messages call the text.

    Raises:
        SettingsError: everything that is wrong with it, one sentence each, as `name:line:column: …`.
    """
    document = read(text, name)
    filling = document.fill(environ)
    settings, problems = _validate(filling, document)
    told: list[Problem] = []
    for place, row in pending.find(filling.data):
        (problems if row.stops else told).append(document.problem(place, row.sentence, at_key=True))
    if settings is None or problems:
        raise SettingsError(_listed(problems, name))
    told += [document.problem(place, sentence) for place, sentence in advice(settings)]
    return Loaded(settings=settings, path=None, notices=_listed(told, name))


def _validate(filling: Filling, document: Document) -> tuple[Settings | None, list[Problem]]:
    problems = list(filling.problems)
    try:
        return Settings.model_validate(filling.data), problems
    except ValidationError as error:
        said = explain(error, document)
    # pydantic compares settings only when each is right; those that are right are compared here all the same.
    together = contradictions(filling.data)
    said += [(place, document.problem(place, sentence)) for place, sentence in together]
    problems += [problem for place, problem in said if not _is_within(place, filling.unfilled)]
    return None, problems


def _is_within(place: Place, around: Iterable[Place]) -> bool:
    return any(place[: len(one)] == one for one in around)


def _listed(problems: Iterable[Problem], name: str) -> tuple[str, ...]:
    ordered = [problem.text(name) for problem in sorted(set(problems))]
    more = len(ordered) - _MOST_PROBLEMS
    return tuple(ordered[:_MOST_PROBLEMS]) + ((f"{name}: and {more} more",) if more > 0 else ())


# --- files ----------------------------------------------------------------------------------------------


_NO_FILE: Final = (
    f"There is no {DEFAULT_FILE} in this folder, and {VARIABLE} is not set. Write one (`tiergate init` puts "
    "down what it finds on this machine), or name yours with --config FILE."
)


def find_file(path: Path | None, environ: Mapping[str, str], *, folder: Path = Path()) -> Path | None:
    """Find the settings file as `load` does; None where none was named and there is none in the folder."""
    if path is not None:
        return path
    if named := environ.get(VARIABLE):
        return Path(named)
    default = folder / DEFAULT_FILE
    return default if default.exists() else None


def _read_text(path: Path) -> str:
    found = _read_bytes(path)
    if isinstance(found, str):
        raise SettingsError((f"{path}: {found}",))
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        before = found[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
    raise SettingsError((f"{path}:{line}:{column}: is not UTF-8 text: save the file as UTF-8",))


def _read_bytes(path: Path) -> bytes | str:
    """Give the content of a file, or a sentence why not."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return f"there is no such file; look at --config and {VARIABLE}"
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else None
        return f"cannot be read: {reason or 'no file can have this name'}"
    return (
        content
        if len(content) <= LARGEST_BYTES
        else "is larger than 1 MiB, which no settings file needs to be"
    )


def read_env(folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the `.env` of a folder, if it has one; with it, what an operator should know about the file.

    Raises:
        SettingsError: a line of it cannot be read.
    """
    path = folder / ".env"
    # A folder of this name is somebody's virtual environment.
    if not path.is_file():
        return {}, ()
    found, faults = parse_env(_read_text(path))
    if faults:
        raise SettingsError(tuple(f"{path}:{line}: {sentence}" for line, sentence in faults))
    open_to_others = stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH)
    notice = f"{path}: other users of this machine can read it: chmod 600 {path}"
    return found, (notice,) if open_to_others else ()
