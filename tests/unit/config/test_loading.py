"""The file is found, read with its `.env`, and refused with a sentence when it cannot be."""

from pathlib import Path

import pytest

from tiergate.config import load
from tiergate.core import SettingsError

TEXT = "providers: {rack: {base_url: 'http://${HOST:-nobody}/v1', tier: private}}\n"


def host(path: Path | None, environ: dict[str, str], folder: Path) -> str | None:
    return load(path, environ, folder=folder).settings.providers["rack"].base_url


def write(path: Path, text: str = TEXT, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_search_order(tmp_path: Path) -> None:
    """The named file wins over TIERGATE_CONFIG, which wins over tiergate.yaml in the folder."""
    named, variable = tmp_path / "named.yaml", tmp_path / "variable.yaml"
    for path in (named, variable, tmp_path / "tiergate.yaml"):
        write(path, TEXT.replace("nobody", path.stem))
    environ = {"TIERGATE_CONFIG": str(variable)}
    assert host(named, environ, tmp_path) == "http://named/v1"
    assert host(None, environ, tmp_path) == "http://variable/v1"
    assert host(None, {"TIERGATE_CONFIG": ""}, tmp_path) == "http://tiergate/v1"
    assert load(None, {}, folder=tmp_path).path == tmp_path / "tiergate.yaml"


def test_nothing_found(tmp_path: Path) -> None:
    """Without any file the error says how to go on."""
    with pytest.raises(SettingsError, match=r"no tiergate\.yaml in this folder.* --config FILE"):
        load(None, {}, folder=tmp_path)


def test_named_and_missing(tmp_path: Path) -> None:
    """A file that was named has to be there, whatever else lies around."""
    write(tmp_path / "tiergate.yaml")
    missing = tmp_path / "no.yaml"
    with pytest.raises(SettingsError, match=r"no\.yaml: there is no such file"):
        load(missing, {}, folder=tmp_path)
    with pytest.raises(SettingsError, match=r"no\.yaml: there is no such file"):
        load(None, {"TIERGATE_CONFIG": str(missing)}, folder=tmp_path)


@pytest.mark.parametrize("name", [".", "a\0b"])
def test_no_file(name: str, tmp_path: Path) -> None:
    """A folder, or a name that no file can have, is told in a sentence."""
    with pytest.raises(SettingsError, match="cannot be read: "):
        load(tmp_path / name, {})


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"a: \xff", "1:4"), (b"# \xc3\xa4\n\xc3(", "2:1"), ("a: b".encode("utf-16"), "1:1")],
)
def test_not_utf8(content: bytes, place: str, tmp_path: Path) -> None:
    """A file that is not UTF-8 is told with the place of the first wrong byte."""
    path = tmp_path / "tiergate.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"tiergate\.yaml:{place}: is not UTF-8 text"):
        load(path, {})


def test_too_large(tmp_path: Path) -> None:
    """A file over 1 MiB is not even read to its end."""
    with pytest.raises(SettingsError, match="larger than 1 MiB"):
        load(write(tmp_path / "tiergate.yaml", "#" * 1_048_577), {})


def test_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    """What editors of other systems write is read, and lines count the same."""
    path = tmp_path / "tiergate.yaml"
    path.write_bytes(b"\xef\xbb\xbflog: {}\r\nproviders:\r\n  a: {base_url: 'http://a', foo: 1}\r\n")
    with pytest.raises(SettingsError, match=r"tiergate\.yaml:3:29: providers\.a\.foo"):
        load(path, {})


def test_env_beside_the_file(tmp_path: Path) -> None:
    """`.env` beside the file fills variables; the environment wins over it."""
    path = write(tmp_path / "tiergate.yaml")
    write(tmp_path / ".env", "HOST=from-file\n")
    assert host(path, {}, tmp_path) == "http://from-file/v1"
    assert host(path, {"HOST": "from-environment"}, tmp_path) == "http://from-environment/v1"
    assert load(path, {}).notices == ()


def test_the_same_file_means_the_same_ledger_wherever_it_is_read(tmp_path: Path) -> None:
    """`data_dir` goes by the folder of the file, not by that of whoever reads it."""
    path = write(tmp_path / "tiergate.yaml")
    assert load(path, {"HOST": "h"}).settings.data_dir == tmp_path / "tiergate-data"
    path.write_text(path.read_text() + "data_dir: /elsewhere\n")
    assert load(path, {"HOST": "h"}).settings.data_dir == Path("/elsewhere")


def test_env_open_to_others(tmp_path: Path) -> None:
    """A `.env` that others can read is told."""
    path = write(tmp_path / "tiergate.yaml")
    write(tmp_path / ".env", "HOST=a\n", mode=0o644)
    (notice,) = load(path, {}).notices
    assert (
        notice
        == f"{tmp_path / '.env'}: other users of this machine can read it: chmod 600 {tmp_path / '.env'}"
    )


def test_env_malformed(tmp_path: Path) -> None:
    """A malformed line of `.env` stops the start with its number."""
    path = write(tmp_path / "tiergate.yaml")
    write(tmp_path / ".env", "A=1\nsk-hunter2\n")
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    assert caught.value.problems == (f"{tmp_path / '.env'}:2: is not KEY=VALUE, a comment or empty",)


def test_env_folder(tmp_path: Path) -> None:
    """A folder called `.env` is a virtual environment and none of our business."""
    (tmp_path / ".env").mkdir()
    assert host(write(tmp_path / "tiergate.yaml"), {}, tmp_path) == "http://nobody/v1"
