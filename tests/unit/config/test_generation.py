"""A reload gives the next generation whole, or nothing changes."""

from pathlib import Path

import pytest

from tiergate.config import Snapshot, first_snapshot, load, load_text, next_snapshot, reload
from tiergate.core import SettingsError

PROVIDERS = "providers: {rack: {base_url: http://10.0.0.7/v1, tier: private}}\n"
KEYS = "auth: keys\nkeys: [{name: ci, secret: 0123456789abcdef0123}]\n"


def start(tmp_path: Path, text: str) -> Snapshot:
    path = tmp_path / "tiergate.yaml"
    path.write_text(text)
    return first_snapshot(load(path, {}))


def again(current: Snapshot, text: str) -> Snapshot:
    assert current.path is not None
    current.path.write_text(text)
    return reload(current, {})


def test_the_next_generation(tmp_path: Path) -> None:
    """A good file gives new settings under the next number; the old snapshot is untouched."""
    old = start(tmp_path, PROVIDERS)
    new = again(old, PROVIDERS + "models: {chat: {targets: [rack/llama]}}\n")
    assert (old.generation, new.generation) == (1, 2)
    assert (list(old.settings.models), list(new.settings.models)) == ([], ["chat"])
    assert new.notices == ()
    assert again(new, PROVIDERS).generation == 3


def test_a_bad_file_is_refused_whole(tmp_path: Path) -> None:
    """One wrong line leaves everything as it was."""
    old = start(tmp_path, PROVIDERS)
    with pytest.raises(SettingsError, match="there is no such setting"):
        again(old, PROVIDERS + "models: {chat: {targets: [rack/llama]}}\nzzz: 1\n")
    assert not old.settings.models
    assert again(old, PROVIDERS).generation == 2


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    """A file that is gone changes nothing."""
    old = start(tmp_path, PROVIDERS)
    assert old.path is not None
    old.path.unlink()
    with pytest.raises(SettingsError, match="there is no such file"):
        reload(old, {})


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("listen: 127.0.0.1:9", "listen"),
        ("admin: {listen: 127.0.0.1:9}", "admin.listen"),
        ("admin: {token: 0123456789abcdef0123456789abcdef}", "admin.token"),
        ("data_dir: /elsewhere", "data_dir"),
        ("secret: 0123456789abcdef0123456789abcdef", "secret"),
    ],
)
def test_what_needs_a_restart(line: str, name: str, tmp_path: Path) -> None:
    """What cannot change while running keeps its value, and a notice says so; the rest changes."""
    old = start(tmp_path, PROVIDERS)
    new = again(old, PROVIDERS + line + "\nresilience: {attempts: 1}\n")
    assert f"{name} needs a restart to change; the old value stays" in new.notices
    assert new.settings.resilience.attempts == 1
    assert new.settings.model_dump(include={"listen", "data_dir", "secret"}) == old.settings.model_dump(
        include={"listen", "data_dir", "secret"}
    )
    assert new.settings.admin.listen == old.settings.admin.listen
    assert "0123456789abcdef" not in "".join(new.notices)


def test_a_kept_address_never_meets_an_open_door(tmp_path: Path) -> None:
    """A public address that stays with an `auth` that opened would be an open house: refused whole."""
    old = start(tmp_path, "listen: 0.0.0.0:4400\n" + KEYS + PROVIDERS)
    with pytest.raises(SettingsError) as caught:
        again(old, "listen: 127.0.0.1:4400\nauth: open\n" + PROVIDERS)
    assert "auth is open" in caught.value.problems[0]
    assert caught.value.problems[-1].startswith("listen: needs a restart to change")
    assert old.settings.auth == "keys"


def test_settings_without_a_file() -> None:
    """Settings from a text can be followed by settings from a text, not loaded again."""
    old = first_snapshot(load_text(PROVIDERS, {}))
    assert next_snapshot(old, load_text(PROVIDERS + "log: {}", {})).generation == 2
    with pytest.raises(SettingsError, match="came from no file"):
        reload(old, {})


def test_an_env_file_is_read_again(tmp_path: Path) -> None:
    """A key that was rotated in `.env` is the new one after a reload."""
    (tmp_path / ".env").write_text("KEY=old-key\n")
    text = "providers: {rack: {base_url: http://10.0.0.7/v1, api_keys: ['${KEY}']}}\n"
    old = start(tmp_path, text)
    (tmp_path / ".env").write_text("KEY=new-key\n")
    new = again(old, text)
    keys = [found.settings.providers["rack"].api_keys[0].reveal() for found in (old, new)]
    assert keys == ["old-key", "new-key"]
