"""House rules that no linter knows: who may speak SQL, who may send, and what no file may hold."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "tiergate").rglob("*.py"))
PYTHON = [
    *SOURCES,
    *(
        path
        for folder in ("tests", "benchmarks", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def files_of_the_repository() -> Iterator[Path]:
    """Every file that could be committed: nothing that tools leave behind."""
    left_behind = re.compile(r"\.(?!ci$|github$)|__pycache__$|build$|dist$|tiergate-data$|node_modules$")
    folders = [ROOT]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_symlink():
                continue
            if path.is_file():
                yield path
            elif path.is_dir() and not left_behind.match(path.name):
                folders.append(path)


def strings_of_code(tree: ast.AST) -> Iterator[ast.Constant]:
    """The string constants of a module that are no docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | bare:
            yield node


SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s+(OR|INTO)\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|(CREATE|DROP|ALTER)\s+\w+\s"
    r"|PRAGMA\s|(BEGIN|COMMIT|ROLLBACK)(\s+\w+)?\s*$)"
)


def test_sql_is_spoken_in_the_store_only() -> None:
    """No other room holds a statement, not even a small one."""
    speaking = {
        name(path)
        for path in SOURCES
        for node in strings_of_code(ast.parse(path.read_text()))
        if SQL.match(node.value)  # type: ignore[arg-type]  # it is a string: see `strings_of_code`
    }
    assert speaking
    assert all(path.startswith("src/tiergate/store/") for path in speaking), speaking


def test_redis_is_spoken_in_the_store_only() -> None:
    """No other room imports a database."""
    for path in SOURCES:
        imported = {
            module.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for module in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        if not name(path).startswith("src/tiergate/store/"):
            assert not imported & {"redis", "sqlite3", "psycopg", "asyncpg", "sqlalchemy"}, name(path)


def sends(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls of `….upstream.send(…)`, whatever stands before it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "send":
            of = ast.unparse(node.func.value)
            if of.rpartition(".")[2].strip("_").endswith("upstream"):
                yield node


def test_only_egress_sends_to_the_upstream_port() -> None:
    """One way out: every other caller would pass by the last check of private-only calls."""
    sending = [name(path) for path in SOURCES for _ in sends(ast.parse(path.read_text()))]
    assert sending == ["src/tiergate/serve/egress.py"]


def test_in_serve_nothing_else_is_sent() -> None:
    """Also not by another name of the port."""
    for path in SOURCES:
        if "/serve/" in path.as_posix() and path.name != "egress.py":
            assert ".send(" not in path.read_text(), name(path)


# Who may open, take or secure a connection. Everybody else goes through `upstream`, which follows no
# redirect, uses no proxy of the environment and always verifies.
NETWORK: dict[str, set[str]] = {
    "socket": {"upstream", "web", "admin", "testing"},
    "ssl": {"upstream", "testing"},
    "httptools": {"upstream", "testing"},
    "aiohttp": {"upstream"},
    "redis": {"store"},
    "uvicorn": {"admin"},
    "granian": {"web"},
}
OTHER_CLIENTS = {
    "anyio", "curl_cffi", "ftplib", "grpc", "h11", "h2", "httpcore", "http.client", "http.server", "httpx",
    "httpx2", "imaplib", "niquests", "openai", "paramiko", "poplib", "pycurl", "requests", "smtplib",
    "socketserver", "telnetlib", "tornado", "trio", "urllib.request", "urllib3", "websocket", "websockets",
    "wsgiref", "wsproto", "xmlrpc",
}  # fmt: skip
"""None of them is used anywhere."""
OPENERS = {
    "create_connection", "create_datagram_endpoint", "create_unix_connection", "getaddrinfo", "gethostbyname",
    "open_connection", "open_unix_connection", "sock_connect", "urlopen",
}  # fmt: skip
"""What opens a connection or asks for an address, by whatever name the module goes."""


def imports(tree: ast.AST) -> Iterator[str]:
    """The whole names of what a module imports; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reaches_out(source: str, room: str) -> list[str]:
    """What of a module goes around the one way out."""
    tree = ast.parse(source)
    found = []
    for module in imports(tree):
        is_other = any(f"{module}.".startswith(f"{other}.") for other in OTHER_CLIENTS)
        if is_other or room not in NETWORK.get(module.partition(".")[0], {room}):
            found.append(module)
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if word in OPENERS and room not in ("upstream", "testing"):
            found.append(word)
    return found


def test_only_upstream_opens_connections() -> None:
    """S12: one way out of the process; the database's client in `store` is the other, to its one address."""
    for path in SOURCES:
        room = path.relative_to(ROOT / "src" / "tiergate").parts[0]
        assert reaches_out(path.read_text(), room) == [], name(path)


@pytest.mark.parametrize(
    ("source", "room", "found"),
    [
        ("import httpx", "upstream", ["httpx"]),
        ("from urllib import request", "app", ["urllib.request"]),
        ("import urllib.request as r", "app", ["urllib.request"]),
        ("from urllib.parse import urlsplit", "app", []),
        ("import socket", "serve", ["socket"]),
        ("import socket", "upstream", []),
        ("import aiohttp", "app", ["aiohttp"]),
        ("import asyncio\nasyncio.open_connection('a', 1)", "app", ["open_connection"]),
        ("loop.create_connection(f, 'a', 1)", "web", ["create_connection"]),
        ("loop.create_connection(f, 'a', 1)", "upstream", []),
    ],
)
def test_a_second_way_out_would_be_seen(source: str, room: str, found: list[str]) -> None:
    """By import and by call."""
    assert reaches_out(source, room) == found


def excuses(source: str) -> Iterator[tuple[int, str]]:
    """Every comment that tells a linter or type checker to look away, with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and re.search(r"#\s*(noqa|type:\s*ignore)", token.string):
            yield token.start[0], token.string


REASONED = re.compile(r"# (noqa: [A-Z]+\d+(, [A-Z]+\d+)* - |type: ignore\[[\w-]+(, ?[\w-]+)*\]  # )\w+\W+\w+")


def test_who_asks_a_linter_to_look_away_says_why() -> None:
    """With the rule's name and a reason in words."""
    unreasoned = [
        f"{name(path)}:{line}: {comment}"
        for path in PYTHON
        for line, comment in excuses(path.read_text())
        if not REASONED.match(comment)
    ]
    assert not unreasoned, "\n".join(unreasoned)


@pytest.mark.parametrize(
    ("comment", "reasoned"),
    [
        ("# noqa: A002 - the dialect's word", True),
        ("# type: ignore[misc]  # here the class serves every code", True),
        ("# " + "noqa", False),
        ("# " + "noqa: A002", False),
        ("# " + "noqa: A002 - x", False),
        ("# type" + ": ignore", False),
        ("# type" + ": ignore[misc]", False),
        ("# type" + ": ignore  # some reason", False),
    ],
)
def test_a_reason_is_told_from_none(comment: str, reasoned: bool) -> None:
    """What counts as one."""
    assert bool(REASONED.match(comment)) is reasoned
    assert list(excuses(f"x = 1  {comment}\n")) == [(1, comment)]


# Put together here, so that this file does not hold what it looks for.
HOSTS = [
    one + two
    for one, two in (("pypi", ".org"), ("python", "hosted.org"), ("npm", "js."), ("anaconda", ".org"))
]
FOLDERS = [one + two for one, two in (("wo", "rk"), ("ro", "ot"), ("ho", "me"), ("Us", "ers"))]
FOREIGN = re.compile(rf"(?:{'|'.join(map(re.escape, HOSTS))})|(?<![\w.~-])/(?:{'|'.join(FOLDERS)})/\w")


def test_no_file_names_a_package_index_or_a_place_on_somebodys_machine() -> None:
    """What is installed comes from where the user says, and paths are relative."""
    found = []
    for path in files_of_the_repository():
        text = path.read_bytes().decode("utf-8", "ignore")
        found += [f"{name(path)}: {match[0]}" for match in FOREIGN.finditer(text)]
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_looks_for() -> None:
    """And reads the files that matter."""
    assert FOREIGN.search(f"https://{HOSTS[0]}/simple") and FOREIGN.search(f"cd /{FOLDERS[2]}/me")
    assert not FOREIGN.search("/v1/work/") and not FOREIGN.search("framework/x")
    read = {name(path) for path in files_of_the_repository()}
    assert {"pyproject.toml", "Makefile", "README.md", ".ci/run", "requirements/base.txt"} <= read
    assert not any(path.startswith((".git/", ".venv")) for path in read)
