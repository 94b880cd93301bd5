"""Snapshots of the settings: a reload gives the next generation whole, or changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tiergate.config.loading import Loaded, load
from tiergate.config.problems import path_text
from tiergate.config.settings import Settings
from tiergate.core import SettingsError

FIXED: Final = (
    ("listen",),
    ("admin", "listen"),
    ("admin", "token"),
    ("data_dir",),
    ("store",),
    ("redis",),
    ("secret",),
)
"""What cannot change while the gateway runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The settings that calls are resolved under; every call records the generation."""

    settings: Settings
    generation: int
    path: Path | None
    notices: tuple[str, ...] = ()


def first_snapshot(loaded: Loaded) -> Snapshot:
    """Give the snapshot that a start begins with, generation 1."""
    return Snapshot(settings=loaded.settings, generation=1, path=loaded.path, notices=loaded.notices)


def reload(current: Snapshot, environ: Mapping[str, str]) -> Snapshot:
    """Load the file of a snapshot again and give the next one.

    What cannot change while the gateway runs keeps its value, and a notice says that it needs a restart.

    Raises:
        SettingsError: the file is refused whole; `current` stays in force.
    """
    if current.path is None:
        raise SettingsError(("These settings came from no file, so there is nothing to load again.",))
    return next_snapshot(current, load(current.path, environ))


def next_snapshot(current: Snapshot, loaded: Loaded) -> Snapshot:
    """Give the snapshot after `current` from settings that are already loaded.

    Raises:
        SettingsError: the new settings cannot stand together with what keeps its value.
    """
    kept = tuple(path for path in FIXED if _value(current.settings, path) != _value(loaded.settings, path))
    notices = tuple(f"{path_text(path)} needs a restart to change; the old value stays" for path in kept)
    return Snapshot(
        settings=_keeping(kept, current.settings, loaded.settings),
        generation=current.generation + 1,
        path=loaded.path,
        notices=loaded.notices + notices,
    )


def _keeping(kept: tuple[tuple[str, ...], ...], old: Settings, new: Settings) -> Settings:
    """Check the mixture as a whole: a public address that stays must not meet an `auth` that opened."""
    if not kept:
        return new
    data = new.model_dump(exclude_unset=True)
    for path in kept:
        _put(data, path, _value(old, path))
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        said = [
            f"{path_text(details['loc'])}: {details['msg']}"
            for details in error.errors(include_url=False, include_input=False)
        ]
    stays = ", ".join(path_text(path) for path in kept)
    raise SettingsError(
        (*said, f"{stays}: needs a restart to change, and the rest cannot stand beside the old value")
    )


def _value(settings: Settings, path: tuple[str, ...]) -> object:
    found: object = settings
    for name in path:
        found = getattr(found, name)
    return found


def _put(data: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        data = data.setdefault(name, {})
    data[path[-1]] = value
