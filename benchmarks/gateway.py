"""Measures the gateway beside nginx and, where they are installed, other gateways; writes BENCHMARKS.md.

Everything runs on this machine in one run: each gateway alone on the first core, load generator (wrk) and
upstream on the second. The machine may be shared and noisy, so read the ratios and not the figures; whole
replies are measured in rounds, the gateways taking turns, and the best of each figure counts. nginx as a plain
reverse proxy is the practical limit of one core; it reads nothing and counts nothing.

    make bench-gateway                       nginx and Tiergate
    make bench-rivals bench-gateway          also LiteLLM, Portkey and sglang-router, each in a place of its own

Needs wrk and nginx (Debian: apt install wrk nginx-light) and two cores.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from page import write_part

ROOT: Final = Path(__file__).resolve().parent.parent
GATEWAY_CORE, LOAD_CORE = "0", "1"
UPSTREAM_PORT, STREAM_PORT, GATEWAY_PORT, TLS_PORT = 4711, 4712, 4713, 4714
CERTIFICATES = ROOT / "tests/contract/certificates"
KEY: Final = "bench-key-0123456789abcdef"
UPSTREAM_KEY: Final = "bench-upstream-key-0123456789"

REPLY: Final = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "All work and no play makes a dull day. " * 52},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 500, "total_tokens": 520},
    },
    separators=(",", ":"),
)
QUESTION: Final = {
    "model": "m",
    "messages": [{"role": "user", "content": "How was your day? " * 20}],
    "max_tokens": 500,
}

SETTINGS: Final = f"""
listen: 127.0.0.1:{{port}}
data_dir: {{data}}
auth: keys
keys: [{{{{name: bench, secret: {KEY}}}}}]
providers: {{{{up: {{{{base_url: 'http://127.0.0.1:{{upstream}}/v1', api_keys: [{UPSTREAM_KEY}]}}}}}}}}
models: {{{{m: {{{{targets: [up/m]}}}}}}}}
prices: [{{{{target: up/m, usd_per_1m: {{{{input: 2.00, output: 8.00}}}}, source: benchmark}}}}]
"""
NGINX_UPSTREAM: Final = """
daemon off; master_process off; error_log /dev/null crit; pid {folder}/upstream.pid;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/u;
  server {{ listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{tls_port} ssl backlog=4096;
    ssl_certificate {certificate}; ssl_certificate_key {certificate};
    location = /served {{ stub_status; }}
    location / {{ default_type application/json; return 200 '{reply}'; }} }} }}
"""
_NUMBERED: Final = """
local seed = 0
request = function()
  seed = seed + 1
  local number = string.format(',"seed":%d%06d}', os.time(), seed)
  return wrk.format(nil, nil, nil, (wrk.body:gsub("}$", number)))
end
"""
NGINX_PROXY: Final = """
daemon off; master_process off; error_log /dev/null crit; pid {folder}/proxy.pid;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 4096; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A gateway that can be measured: how it is started for an upstream port, and why not if it cannot."""

    name: str
    version: str
    features: str
    command: Callable[[Path, int], Sequence[str]]
    environment: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    start_s_max: float = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk reported."""

    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What the reader of streams reported: how much arrived, and how late after it was sent."""

    chunks_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    ended: int
    broken: int


class NotAnsweringError(Exception):
    """A gateway did not start, or does not do what it is asked."""


def tiergate() -> Contender:
    """Tiergate with everything on that it has: keys, prices, a hold and a settlement for each call, the log."""

    def command(folder: Path, upstream: int) -> Sequence[str]:
        config = folder / "tiergate.yaml"
        data = folder / f"data-{time.monotonic_ns()}"
        config.write_text(SETTINGS.format(port=GATEWAY_PORT, data=data, upstream=upstream), encoding="utf-8")
        return (sys.executable, "-m", "tiergate.app.cli", "serve", "--config", str(config))

    version = subprocess.run(
        [sys.executable, "-m", "tiergate.app.cli", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    return Contender(
        name="Tiergate",
        version=version,
        features="keys, prices, hold and settle in the ledger, log",
        command=command,
    )


def nginx() -> Contender:
    """Nginx as a plain reverse proxy."""

    def command(folder: Path, upstream: int) -> Sequence[str]:
        config = folder / "proxy.conf"
        config.write_text(
            NGINX_PROXY.format(folder=folder, upstream=upstream, port=GATEWAY_PORT), encoding="utf-8"
        )
        return ("nginx", "-e", "/dev/null", "-c", str(config))

    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return Contender(
        name="nginx", version=said.strip().rpartition("/")[2], features="none: a plain proxy", command=command
    )


def litellm() -> Contender | None:
    """LiteLLM's proxy, without database and keys."""
    program = ROOT / ".venv-litellm/bin/litellm"
    if not program.exists():
        return None

    def command(folder: Path, upstream: int) -> Sequence[str]:
        config = folder / "litellm.yaml"
        config.write_text(
            "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
            f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: {KEY}\n",
            encoding="utf-8",
        )
        return (str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(GATEWAY_PORT))

    return Contender(
        name="LiteLLM proxy",
        version=_pip_version(program.parent / "python", "litellm"),
        features="no keys, no database",
        command=command,
        environment={
            "LITELLM_TELEMETRY": "False",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            # It runs without keys here, on loopback only, and wants to be told that this is meant.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
        start_s_max=120,
    )


def portkey() -> Contender | None:
    """Portkey's open gateway on Node."""
    folder = ROOT / ".venv-portkey/node_modules/@portkey-ai/gateway"
    if not (folder / "build/start-server.js").exists():
        return None

    def command(_: Path, __: int) -> Sequence[str]:
        return ("node", str(folder / "build/start-server.js"), "--headless", f"--port={GATEWAY_PORT}")

    return Contender(
        name="Portkey gateway",
        version=json.loads((folder / "package.json").read_text("utf-8"))["version"],
        features="no keys, no accounting",
        command=command,
        headers={"x-portkey-provider": "openai"},
    )


def sglang_router() -> Contender | None:
    """Sglang's router, in Rust."""
    python = ROOT / ".venv-sglang-router/bin/python"
    if not python.exists():
        return None

    def command(_: Path, upstream: int) -> Sequence[str]:
        return (
            *(
                str(python),
                "-m",
                "sglang_router.launch_router",
                "--host",
                "127.0.0.1",
                "--port",
                str(GATEWAY_PORT),
            ),
            *("--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"),
            *("--disable-retries", "--disable-circuit-breaker", "--log-level", "error"),
        )

    return Contender(
        name="sglang-router",
        version=_pip_version(python, "sglang-router"),
        features="no keys, no accounting",
        command=command,
    )


def main() -> int:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5, help="of load for each figure (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of whole replies (default 3)")
    parser.add_argument("--only", help="names of gateways, comma-separated")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    missing = [program for program in ("nginx", "wrk", "taskset") if shutil.which(program) is None]
    if missing or (os.cpu_count() or 1) < 2:
        print(
            f"Needs two cores and {', '.join(missing) or 'wrk and nginx'}. On Debian: apt install wrk nginx-light"
        )
        return 1
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = [nginx(), tiergate(), sglang_router(), portkey(), litellm()]
    names = None if given.only is None else {name.strip().lower() for name in given.only.split(",")}
    contenders = [one for one in found if one is not None and (names is None or one.name.lower() in names)]
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as folder, ExitStack() as stack:
        stack.enter_context(reply_upstream(Path(folder)))
        stack.enter_context(_stream_upstream())
        rows: dict[str, dict[str, object]] = {contender.name: {} for contender in contenders}
        for number in range(1, given.rounds + 1):
            for contender in contenders:
                print(f"round {number}, {contender.name}", flush=True)
                _try(_measure_whole, contender, Path(folder), given.seconds, rows[contender.name])
        for contender in contenders:
            print(f"streams, {contender.name}", flush=True)
            _try(_measure_streams, contender, Path(folder), given.seconds, rows[contender.name])
    contenders = [contender for contender in contenders if rows[contender.name]]
    write_part(given.output, "gateway", _page(contenders, rows, given.seconds, given.rounds))
    print(f"\nWritten: {given.output}")
    return 0


Row = dict[str, object]
Measure = Callable[[Contender, Path, float, Row], None]


def _try(measure: Measure, contender: Contender, folder: Path, seconds: float, row: Row) -> None:
    try:
        measure(contender, folder, seconds, row)
    except NotAnsweringError as error:
        print(f"  {error}; left out")


def _measure_whole(contender: Contender, folder: Path, seconds: float, row: Row) -> None:
    with _running(contender, folder, UPSTREAM_PORT) as process:
        row["rest_mb"] = _resident_mb(process.pid)
        for connections in (1, 32, 256):
            load = wrk(_headers(contender, UPSTREAM_PORT), connections=connections, seconds=seconds)
            print(f"  {connections} connections: {load}", flush=True)
            row[f"whole_{connections}"] = _best(load, row.get(f"whole_{connections}"))


def _best(load: Load, before: object) -> Load:
    if not isinstance(before, Load):
        return load
    return Load(
        per_s=max(load.per_s, before.per_s),
        p50_ms=min(load.p50_ms, before.p50_ms),
        p99_ms=min(load.p99_ms, before.p99_ms),
        errors=load.errors + before.errors,
    )


def _measure_streams(contender: Contender, folder: Path, seconds: float, row: Row) -> None:
    with _running(contender, folder, STREAM_PORT) as process:
        before = _resident_mb(process.pid)
        for streams in (1, 100, 500, 1000):
            row[f"stream_{streams}"] = _streams(contender, streams, seconds)
            print(f"  {streams} streams: {row[f'stream_{streams}']}", flush=True)
        row["kib_per_stream"] = max(0.0, _resident_mb(process.pid, peak=True) - before) * 1024 / 1000


def _headers(contender: Contender, upstream: int) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **contender.headers}
    if contender.name == "Portkey gateway":
        headers["x-portkey-custom-host"] = f"http://127.0.0.1:{upstream}/v1"
    return headers


def _streams(contender: Contender, count: int, seconds: float) -> Streams:
    asked = {
        "path": "/v1/chat/completions",
        "headers": _headers(contender, STREAM_PORT),
        "body": {**QUESTION, "stream": True},
    }
    reader = (sys.executable, str(Path(__file__).with_name("stream_client.py")))
    said = subprocess.run(
        ["taskset", "-c", LOAD_CORE, *reader, str(GATEWAY_PORT), str(count), str(seconds)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return Streams(**json.loads(said))


def wrk(
    headers: dict[str, str],
    *,
    connections: int,
    seconds: float,
    port: int = GATEWAY_PORT,
    question: Mapping[str, object] = QUESTION,
    numbered: bool = False,
) -> Load:
    """Put load on a gateway with one question, and give what came of it.

    `numbered`: each request has another `seed`, so that none asks what was asked before.
    """
    body = json.dumps(question, separators=(",", ":"))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
        script.write("\n".join(['wrk.method = "POST"', f"wrk.body = [[{body}]]", *lines]))
        if numbered:
            script.write(_NUMBERED)
        script.flush()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        options = (
            "-t1",
            f"-c{connections}",
            f"-d{seconds:.0f}s",
            "--timeout",
            "30s",
            "--latency",
            "-s",
            script.name,
        )
        said = subprocess.run(
            ["taskset", "-c", LOAD_CORE, "wrk", *options, url], capture_output=True, text=True, check=True
        ).stdout
    return _read_wrk(said)


def _read_wrk(said: str) -> Load:
    def latency(share: str) -> float:
        found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\s*$", said, re.MULTILINE)
        assert found is not None, said
        return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}[found[2]]

    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    errors = (int(failed[1]) if failed else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return Load(per_s=float(rate[1]), p50_ms=latency("50"), p99_ms=latency("99"), errors=errors)


@contextmanager
def _running(contender: Contender, folder: Path, upstream: int) -> Iterator[subprocess.Popen[bytes]]:
    command = ["taskset", "-c", GATEWAY_CORE, *contender.command(folder, upstream)]
    with (folder / f"{contender.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **contender.environment},
            start_new_session=True,
        )
        try:
            _until_it_answers(contender, process, upstream)
            yield process
        finally:
            # Its own process group, so that workers of its own end with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _until_it_answers(contender: Contender, process: subprocess.Popen[bytes], upstream: int) -> None:
    headers = _headers(contender, upstream)
    stream = upstream == STREAM_PORT
    body = json.dumps({**QUESTION, "stream": stream}).encode()
    deadline = time.monotonic() + contender.start_s_max
    last: object = None
    while time.monotonic() < deadline and process.poll() is None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{GATEWAY_PORT}/v1/chat/completions", data=body, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                response.read()
                return
        except (urllib.error.URLError, OSError) as error:
            last = error
            time.sleep(0.1)
    raise NotAnsweringError(f"{contender.name} did not answer: {last}")


@contextmanager
def reply_upstream(folder: Path) -> Iterator[None]:
    """Run an upstream that gives one whole reply to whatever it is asked."""
    config = folder / "upstream.conf"
    text = NGINX_UPSTREAM.format(
        folder=folder,
        port=UPSTREAM_PORT,
        tls_port=TLS_PORT,
        certificate=CERTIFICATES / "good.pem",
        reply=REPLY,
    )
    config.write_text(text, encoding="utf-8")
    command = ["taskset", "-c", LOAD_CORE, "nginx", "-e", "/dev/null", "-c", str(config)]
    with _process(command, UPSTREAM_PORT):
        yield


@contextmanager
def _stream_upstream() -> Iterator[None]:
    script = Path(__file__).with_name("stream_upstream.py")
    with _process(["taskset", "-c", LOAD_CORE, sys.executable, str(script), str(STREAM_PORT)], STREAM_PORT):
        yield


@contextmanager
def _process(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _resident_mb(pid: int, *, peak: bool = False) -> float:
    """Give the resident memory of a process and its children, in MB."""
    total = 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    for one in (str(pid), *children):
        status = Path(f"/proc/{one}/status").read_text("ascii")
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
        total += int(found[1]) / 1000 if found else 0
    return total


def _pip_version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def _seconds(command: Sequence[str]) -> float:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        took.append(time.perf_counter() - start)
    return min(took)


def _page(
    contenders: Sequence[Contender], rows: dict[str, dict[str, object]], seconds: float, rounds: int
) -> str:
    own = rows.get("Tiergate", {})
    start_s = _seconds([sys.executable, "-m", "tiergate.app.cli", "--help"])
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench-gateway`; [the script](benchmarks/gateway.py) says how it measures.",
        "",
        _run_line(seconds, rounds),
        "",
        "| gateway | version | what it does to each call |",
        "|---|---|---|",
        *(f"| {one.name} | {one.version} | {one.features} |" for one in contenders),
        "",
        "## Whole replies (2.3 kB)",
        "",
        "| gateway | 1 connection: p50 ms | 32: calls/s | 256: calls/s | 256: p99 ms | against nginx (256) | errors |",
        "|---|---|---|---|---|---|---|",
        *(_whole_row(one.name, rows) for one in contenders),
        "",
        "## Streams (50 chunks a second each): how long after it was sent a chunk arrived",
        "",
        "| gateway | 1 stream: p50 ms | 100: p99 ms | 500: chunks/s | 500: p50 ms | 500: p99 ms | 1000: chunks/s | 1000: p99 ms | broken streams |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_stream_row(one.name, rows) for one in contenders if "stream_1000" in rows[one.name]),
        "",
        "## Memory and start",
        "",
        "| gateway | resident at rest, MB | per stream at 1000 streams, KiB |",
        "|---|---|---|",
        *(
            f"| {one.name} | {rows[one.name]['rest_mb']:.0f} | {rows[one.name]['kib_per_stream']:.0f} |"
            for one in contenders
            if "kib_per_stream" in rows[one.name]
        ),
        "",
        f"`tiergate --help` takes {start_s:.2f} s (best of 5).",
        "",
    ]
    if own and len(contenders) > 1:
        lines += ["## Ratios", "", *_ratios(own, contenders, rows), ""]
    return "\n".join(lines)


def _run_line(seconds: float, rounds: int) -> str:
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} shared cores: one for the gateway, one for load and upstream. "
        f"{seconds:.0f} s for each figure; of whole replies the best of {rounds} rounds in which the gateways took turns. "
        f"**Read the ratios**: all sides were measured in this run."
    )


def _whole_row(name: str, rows: dict[str, dict[str, object]]) -> str:
    one, some, many = (_load(rows, name, f"whole_{count}") for count in (1, 32, 256))
    best = rows.get("nginx")
    share = f"{many.per_s / _load(rows, 'nginx', 'whole_256').per_s:.2f}" if best else "-"
    return (
        f"| {name} | {one.p50_ms:.2f} | {some.per_s:,.0f} | {many.per_s:,.0f} | {many.p99_ms:.0f} | {share} "
        f"| {one.errors + some.errors + many.errors} |"
    )


def _stream_row(name: str, rows: dict[str, dict[str, object]]) -> str:
    reported = []
    for count in (1, 100, 500, 1000):
        found = rows[name][f"stream_{count}"]
        assert isinstance(found, Streams)
        reported.append(found)
    one, few, some, many = reported
    return (
        f"| {name} | {_late(one.p50_ms)} | {_late(few.p99_ms)} | {some.chunks_per_s:,.0f} | {_late(some.p50_ms)} "
        f"| {_late(some.p99_ms)} | {many.chunks_per_s:,.0f} | {_late(many.p99_ms)} "
        f"| {sum(load.broken for load in reported)} |"
    )


def _late(milliseconds: float | None) -> str:
    return "none came" if milliseconds is None else f"{milliseconds:,.1f}"


def _ratios(
    own: dict[str, object], contenders: Sequence[Contender], rows: dict[str, dict[str, object]]
) -> Iterator[str]:
    for one in contenders:
        if one.name == "Tiergate":
            continue
        for count in (32, 256):
            ratio = (
                _load(rows, "Tiergate", f"whole_{count}").per_s
                / _load(rows, one.name, f"whole_{count}").per_s
            )
            yield f"- {count} connections: {ratio:.2f} times the calls per second of {one.name}"


def _load(rows: dict[str, dict[str, object]], name: str, figure: str) -> Load:
    found = rows[name][figure]
    assert isinstance(found, Load)
    return found


if __name__ == "__main__":
    sys.exit(main())
