"""Which transport is opened, and what is imported for it; each in a fresh interpreter."""

import subprocess
import sys


def run_python(program: str) -> str:
    """Run a program where nothing is imported yet, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


def test_our_own_transport_is_opened_without_importing_aiohttp() -> None:
    """Who does not select aiohttp neither needs it nor waits for its import."""
    program = """
import sys
from tiergate.upstream import open_transport
print(type(open_transport()).__name__, "aiohttp" in sys.modules)
"""
    assert run_python(program) == "Http1Transport False"


def test_selecting_aiohttp_without_having_it_says_what_to_install() -> None:
    """A sentence in place of an ImportError."""
    program = """
import sys
sys.modules["aiohttp"] = None
from tiergate.core import CannotStart
from tiergate.upstream import open_transport
try:
    open_transport("aiohttp")
except CannotStart as error:
    print(error)
"""
    assert "pip install 'tiergate[aiohttp]'" in run_python(program)
