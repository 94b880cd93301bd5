"""The settings that a command works with: those of the file, else of what is found on this machine."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from tiergate.app.discovery import Found, discover, nothing_found, settings_text
from tiergate.config import DEFAULT_FILE, Loaded, find_file, load, load_text, read_env
from tiergate.core import CannotStart
from tiergate.store import LEDGER_FILE

FOUND = "what was found on this machine"
"""The name of settings that stand in no file."""


def file_or_found(config: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Load the settings file; where none is named and none is here, make settings of what is found.

    Raises:
        SettingsError: with a sentence for each problem.
        CannotStart: there is no file, and nothing was found.
    """
    if find_file(config, environ) is not None:
        return load(config, environ)
    from_env, notices = read_env(Path())
    merged = {**from_env, **environ}
    found = _found(merged)
    loaded = load_text(settings_text(found), merged, name=FOUND)
    return replace(loaded, notices=notices + loaded.notices)


def _found(environ: Mapping[str, str]) -> list[Found]:
    # In a thread with a loop of its own: whoever asks may be running one.
    with ThreadPoolExecutor(max_workers=1) as thread:
        found = thread.submit(asyncio.run, discover(environ)).result()
    if not found:
        raise CannotStart(nothing_found())
    return found


def file_or_default(config: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Load the settings file; where there is none, take the defaults for a ledger that is in this folder.

    For commands on the books: they call nobody, so what is on this machine now is no matter.

    Raises:
        SettingsError: with a sentence for each problem.
    """
    if find_file(config, environ) is None:
        defaults = load_text(_NOBODY, {}, name="the defaults")
        if (defaults.settings.data_dir / LEDGER_FILE).exists():
            return defaults
    return load(config, environ)


_NOBODY: Final = "providers: {none: {base_url: http://127.0.0.1, tier: private}}"
"""The least that settings can hold."""


def write_found(target: Path | None, environ: Mapping[str, str], *, force: bool) -> tuple[Path, int]:
    """Write what is found on this machine as a settings file; give the file and how many providers it has.

    Raises:
        CannotStart: nothing was found, or the file is there already or cannot be written.
    """
    path = target or Path(DEFAULT_FILE)
    if path.exists() and not force:
        raise CannotStart(f"{path} is there already. Name another file, or replace it with --force.")
    from_env, _ = read_env(Path())
    merged = {**from_env, **environ}
    found = _found(merged)
    text = settings_text(found)
    load_text(text, merged, name=str(path))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotStart(f"{path} cannot be written: {error.strerror}.") from error
    return path, len(found)
