"""What all tests share: how hypothesis searches, a database server, and places where a ledger can be kept."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from places import Places
from postgres import Server, serving

# A slow machine is no failure, so there is no deadline. In CI every run tries the same examples; elsewhere
# each run tries others, and prints what is needed to repeat a failure.
settings.register_profile("search", deadline=None, max_examples=60, print_blob=True)
settings.register_profile("ci", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "search")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server that all tests share; it is started for the first one that asks."""
    with serving() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Server) -> Iterator[str]:
    """The address of an empty database, as far as whoever uses it can see."""
    with postgres_server.schema() as uri:
        yield uri


@pytest.fixture
def sqlite_places(tmp_path: Path) -> Iterator[Places]:
    """Places that are files."""
    with ExitStack() as stack:
        yield Places("sqlite", tmp_path, None, stack)


@pytest.fixture
def postgres_places(tmp_path: Path, postgres_server: Server) -> Iterator[Places]:
    """Places on a PostgreSQL server."""
    with ExitStack() as stack:
        yield Places("postgres", tmp_path, postgres_server, stack)


@pytest.fixture(params=["sqlite", "postgres"])
def places(request: pytest.FixtureRequest) -> Places:
    """Places in each of the stores, in turn."""
    found: Places = request.getfixturevalue(f"{request.param}_places")
    return found
