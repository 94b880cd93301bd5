"""Says how much an installation without extras brings, and how soon it is there.

    python scripts/measure_install.py PYTHON

PYTHON is that of an environment with nothing in it but the locked requirements and Tiergate
(`make install-size` makes one). Exits with 1 where packages or megabytes are above the goals; times are only
said, since machines differ.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

PACKAGES_MAX: Final = 45
MEGABYTES_MAX: Final = 120
_TOOLS: Final = ("pip", "setuptools")
_QUESTION: Final = json.dumps({"model": "a/mock", "messages": [{"role": "user", "content": "hi"}]}).encode()


def main(python: str) -> int:
    """Measure and print."""
    code = (
        "import importlib.metadata as m, json, sysconfig;"
        "print(json.dumps([sysconfig.get_paths()['purelib'], [d.name for d in m.distributions()]]))"
    )
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    folder, names = json.loads(said)
    packages = len({name.lower() for name in names} - set(_TOOLS))
    files = [path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink()]
    ours = [path for path in files if not path.relative_to(folder).parts[0].startswith(_TOOLS)]
    megabytes = sum(path.stat().st_size for path in ours) / 1e6
    helped = min(_seconds([python, "-m", "tiergate.app.cli", "--help"]) for _ in range(5))
    print(
        f"{packages} packages, {megabytes:.0f} MB; --help takes {helped:.2f} s, "
        f"the first answer comes {_first_answer_s(python):.2f} s after the start"
    )
    return int(packages > PACKAGES_MAX or megabytes > MEGABYTES_MAX)


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _first_answer_s(python: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        mock = subprocess.Popen(
            [python, "-m", "tiergate.app.cli", "mock", "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert mock.stdout is not None
            base_url = mock.stdout.readline().split()[4].rstrip(";")
            port = _free_port()
            settings = (
                f"listen: 127.0.0.1:{port}\nproviders: {{a: {{base_url: '{base_url}', tier: private}}}}\n"
            )
            (Path(folder) / "tiergate.yaml").write_text(settings)
            start = time.perf_counter()
            serve = subprocess.Popen(
                [python, "-m", "tiergate.app.cli", "serve"],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TIERGATE_CONFIG": ""},
            )
            try:
                _ask(f"http://127.0.0.1:{port}/v1/chat/completions")
                return time.perf_counter() - start
            finally:
                serve.terminate()
                serve.wait(10)
        finally:
            mock.terminate()
            mock.wait(10)


def _ask(url: str) -> None:
    request = urllib.request.Request(url, data=_QUESTION, headers={"Content-Type": "application/json"})
    ends = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).read()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.005)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    # Not resolved: the program of an environment is a link, and knows the environment by its own place.
    sys.exit(main(str(Path(sys.argv[1]).absolute())))
