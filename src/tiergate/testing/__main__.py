"""`python -m tiergate.testing`: the mock without the rest of the house. `tiergate mock` is the same."""

import argparse
import sys
from pathlib import Path

import uvloop

from tiergate.core import TiergateError
from tiergate.testing.process import run_mock, run_piped
from tiergate.testing.script import Script
from tiergate.testing.server import MockServer


def main() -> int:
    """Run until told to stop; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tiergate.testing", description=__doc__)
    parser.add_argument("--script", help="YAML; see docs/reference/mock.md")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    parser.add_argument("--piped", action="store_true", help="script on the first line of the input, as JSON")
    asked = parser.parse_args()
    try:
        if asked.piped:
            uvloop.run(run_piped(host=asked.host, port=asked.port))
        else:
            text = Path(asked.script).read_text() if asked.script else ""
            script = Script.from_yaml(text, source=asked.script or "script")
            uvloop.run(run_mock(script, host=asked.host, port=asked.port, ready=_say_url))
    except (TiergateError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say_url(server: MockServer) -> None:
    sys.stdout.write(f"{server.base_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
