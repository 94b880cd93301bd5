"""`tiergate mock`: a scripted provider or engine in the foreground."""

from dataclasses import replace
from pathlib import Path

from tiergate.capacity import EngineModel
from tiergate.core import CannotStart
from tiergate.testing import MockServer, Script, run_mock


async def mock(*, port: int, script: Path | None, engine: bool) -> None:
    """Serve a script until SIGINT or SIGTERM.

    Raises:
        SettingsError: the script is wrong; a sentence for each thing.
        CannotStart: it cannot be read, or the port is taken.
    """
    played = _read(script)
    if engine and played.engine is None:
        played = replace(played, engine=EngineModel())
    await run_mock(played, port=port, ready=_say)


def _read(script: Path | None) -> Script:
    if script is None:
        return Script()
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"The script {script} cannot be read: {error}.") from error
    return Script.from_yaml(text, source=str(script))


def _say(server: MockServer) -> None:
    print(f"The mock listens on {server.base_url}; what it was asked is at {server.url}/mock/log", flush=True)
