"""Measures what runs many prompts side by side: `tiergate batch run`, and what others offer for the same.

All ask the same rows of an upstream that answers at once (nginx, which counts what it is asked), 64 at one time, each on
the first core alone; a figure is of the whole command, from its start to its end. Then each is killed three times on
its way and given the same command again: what is missing, there twice, out of order, and asked again?

    make bench-batch-tools                   Tiergate
    make batch-rivals bench-batch-tools      also flexllm, curator and the cookbook's script, each in its own place

Needs nginx (Debian: apt install nginx-light) and two cores.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx2 as httpx

from gateway import (
    CERTIFICATES,
    GATEWAY_CORE,
    GATEWAY_PORT,
    REPLY,
    ROOT,
    SETTINGS,
    TLS_PORT,
    UPSTREAM_PORT,
    _pip_version,
    reply_upstream,
)
from page import write_part

CONCURRENCY = 64
COOKBOOK = "04a3090348d4ce2e7977612fdf99b7f906a00b43"
"""The commit of the cookbook's script; `make batch-rivals` brings the same."""
KILLS_AT = (0.25, 0.5, 0.75)
LONGEST_S = 600
ANSWER = json.loads(REPLY)["choices"][0]["message"]["content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Something that asks many prompts: its command, and how its input and output are written.

    `command` is given an empty folder, in which the input is `in.jsonl`; `rows` gives the numbers of the rows that
    have the upstream's answer, in the order of the output.
    """

    name: str
    version: str
    keeps: str
    """What it writes down of a row beside its answer."""
    line: Callable[[int], dict[str, Any]]
    command: Callable[[Path], Sequence[str]]
    rows: Callable[[Path], list[int]]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A command that has ended well."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Killed:
    """What an output was after kills."""

    missing: int
    twice: int
    is_ordered: bool
    again: int
    """Requests beyond one for each row."""


def prompt(n: int) -> str:
    """Give the prompt of a row, about half a kilobyte with what is around it."""
    return f"{n}: how was your day? " + "And the one before? " * 15


def _messages(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt(n)}]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def tiergate() -> Tool:
    """Tiergate without a gateway that runs: the command works its batch itself, with everything on."""

    def command(folder: Path) -> Sequence[str]:
        config = folder / "tiergate.yaml"
        config.write_text(SETTINGS.format(port=GATEWAY_PORT, data=folder / "data", upstream=UPSTREAM_PORT))
        program = Path(sys.executable).with_name("tiergate")
        given = ("in.jsonl", "-o", "out.jsonl", "--concurrency", str(CONCURRENCY), "--config", str(config))
        return (str(program), "batch", "run", *given)

    def rows(folder: Path) -> list[int]:
        return [
            int(row["custom_id"])
            for row in _lines(folder / "out.jsonl")
            if row["response"]["body"]["choices"][0]["message"]["content"] == ANSWER
        ]

    def line(n: int) -> dict[str, Any]:
        body = {"model": "m", "messages": _messages(n), "max_tokens": 500}
        return {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body}

    said = subprocess.run(
        [sys.executable, "-m", "tiergate.app.cli", "--version"], capture_output=True, text=True, check=True
    )
    return Tool(
        name="Tiergate",
        version=said.stdout.split()[-1],
        keeps="usage, cost, entry in the ledger",
        line=line,
        command=command,
        rows=rows,
    )


def flexllm() -> Tool | None:
    """Flexllm's command for batches."""
    program = ROOT / ".venv-flexllm/bin/flexllm"
    if not program.exists():
        return None

    def command(_: Path) -> Sequence[str]:
        given = ("in.jsonl", "-o", "out.jsonl", "-c", str(CONCURRENCY), "-m", "m", "--api-key", "none")
        return (str(program), "batch", *given, "--base-url", f"http://127.0.0.1:{UPSTREAM_PORT}/v1")

    def rows(folder: Path) -> list[int]:
        found = _lines(folder / "out.jsonl")
        return [row["metadata"]["id"] for row in found if row.get("output") == ANSWER]

    return Tool(
        name="flexllm",
        version=_pip_version(program.with_name("python"), "flexllm"),
        keeps="usage",
        line=lambda n: {"id": n, "messages": _messages(n)},
        command=command,
        rows=rows,
    )


def curator() -> Tool | None:
    """Bespoke Labs' curator; it wants to know its model's limits, so the rows name one that it knows."""
    python = ROOT / ".venv-curator/bin/python"
    if not python.exists():
        return None

    def command(_: Path) -> Sequence[str]:
        script = Path(__file__).with_name("curator_rows.py")
        return (str(python), str(script), f"http://127.0.0.1:{UPSTREAM_PORT}/v1", str(CONCURRENCY))

    def rows(folder: Path) -> list[int]:
        return [row["id"] for row in _lines(folder / "out.jsonl") if row["answer"] == ANSWER]

    # Its tokenizer would be downloaded; the same file comes with a library that it installs.
    tokenizers = next(python.parent.parent.glob("lib/*/site-packages/litellm/litellm_core_utils/tokenizers"))
    return Tool(
        name="curator",
        version=_pip_version(python, "bespokelabs-curator"),
        keeps="usage, cost",
        line=lambda n: {"id": n, "prompt": prompt(n)},
        command=command,
        rows=rows,
        environment={
            "TELEMETRY_ENABLED": "0",
            "CURATOR_DISABLE_RICH_DISPLAY": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "HF_HUB_OFFLINE": "1",
            "TIKTOKEN_CACHE_DIR": str(tokenizers),
        },
    )


def cookbook() -> Tool | None:
    """The script of OpenAI's cookbook; it takes addresses with TLS alone, so nginx answers it over that."""
    folder = ROOT / ".venv-cookbook"
    script = folder / "api_request_parallel_processor.py"
    if not script.exists():
        return None

    def command(_: Path) -> Sequence[str]:
        limits = ("--max_requests_per_minute", "1000000000", "--max_tokens_per_minute", "1000000000000")
        files = ("--requests_filepath", "in.jsonl", "--save_filepath", "out.jsonl")
        where = ("--request_url", f"https://127.0.0.1:{TLS_PORT}/v1/chat/completions", "--api_key", "none")
        return (str(folder / "bin/python"), str(script), *files, *where, *limits, "--logging_level", "30")

    def rows(folder: Path) -> list[int]:
        return [
            row[2]["row"]
            for row in _lines(folder / "out.jsonl")
            if isinstance(row[1], dict) and row[1]["choices"][0]["message"]["content"] == ANSWER
        ]

    environment = {"SSL_CERT_FILE": str(CERTIFICATES / "issuer.pem")}
    # Its tokenizer would be downloaded; the same file comes with a library of curator's.
    found = list(ROOT.glob(".venv-curator/lib/*/site-packages/litellm/litellm_core_utils/tokenizers"))
    if found:
        environment["TIKTOKEN_CACHE_DIR"] = str(found[0])
    return Tool(
        name="cookbook script",
        version=COOKBOOK[:7],
        keeps="the question, usage",
        line=lambda n: {"model": "m", "messages": _messages(n), "max_tokens": 500, "metadata": {"row": n}},
        command=command,
        rows=rows,
        environment=environment,
    )


class Bench:
    """Runs tools in folders of their own."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.count = count
        self._folders = 0

    def folder(self, tool: Tool) -> Path:
        """Give an empty folder with the tool's input."""
        self._folders += 1
        folder = self.root / f"{tool.name}-{self._folders}"
        folder.mkdir()
        with (folder / "in.jsonl").open("w") as file:
            file.writelines(json.dumps(tool.line(n)) + "\n" for n in range(1, self.count + 1))
        return folder

    def start(self, tool: Tool, folder: Path) -> subprocess.Popen[bytes]:
        """Start a tool's command on its core, as the leader of a group of processes."""
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["taskset", "-c", GATEWAY_CORE, *tool.command(folder)],
                cwd=folder,
                env=os.environ | tool.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, tool: Tool, folder: Path, process: subprocess.Popen[bytes], begin: float) -> Run:
        """Wait for a command's end."""
        alarm, peak_mb = time.monotonic() + LONGEST_S, 0.0
        while True:
            peak_mb = max(peak_mb, _peak_mb(process.pid))
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > alarm:
                os.killpg(process.pid, signal.SIGKILL)
                raise SystemExit(f"{tool.name} did not end in {LONGEST_S} s; see {folder / 'log'}")
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log = (folder / "log").read_text(errors="replace")[-2000:]
            raise SystemExit(f"{tool.name} ended with {process.returncode}:\n{log}")
        return Run(time.monotonic() - begin, used.ru_utime + used.ru_stime, peak_mb)

    def whole(self, tool: Tool) -> Run:
        """Run a command without any disturbance; all rows must be there."""
        folder, begin = self.folder(tool), time.monotonic()
        found = self.end(tool, folder, self.start(tool, folder), begin)
        if sorted(tool.rows(folder)) != list(range(1, self.count + 1)):
            raise SystemExit(f"{tool.name} did not answer all rows; see {folder / 'log'}")
        return found

    def killed(self, tool: Tool) -> Killed:
        """Kill a command some times, and give it again."""
        folder, before = self.folder(tool), served()
        for share in KILLS_AT:
            process = self.start(tool, folder)
            while served() - before < share * self.count and process.poll() is None:
                time.sleep(0.002)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process = self.start(tool, folder)
        self.end(tool, folder, process, time.monotonic())
        rows = tool.rows(folder)
        once = set(rows)
        return Killed(
            missing=self.count - len(once),
            twice=len(rows) - len(once),
            is_ordered=rows == sorted(rows),
            again=served() - before - self.count,
        )


def _peak_mb(pid: int) -> float:
    """Give the most memory that a process had by now; 0: it is gone.

    Not `ru_maxrss`, which counts that of whoever started it, too.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) / 1000 for words in found), 0.0)


_LOOKS = 0


def served() -> int:
    """Give how many calls the upstream was asked; looks do not count."""
    global _LOOKS  # noqa: PLW0603 - its looks are of this process alone
    _LOOKS += 1
    said = httpx.get(f"http://127.0.0.1:{UPSTREAM_PORT}/served").raise_for_status().text
    return int(said.splitlines()[2].split()[2]) - _LOOKS


def main() -> int:
    """Measure, and write the part of tools."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000, help="of the input (default 20,000)")
    parser.add_argument("--turns", type=int, default=2, help="of the whole command (default 2)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    tools = [tool for tool in (tiergate(), flexllm(), curator(), cookbook()) if tool is not None]
    runs: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as name, reply_upstream(Path(name)):
        bench = Bench(Path(name), given.rows)
        for _ in range(given.turns):
            for tool in tools:
                runs[tool.name].append(bench.whole(tool))
                print(tool.name, runs[tool.name][-1], flush=True)
        killed = {}
        for tool in tools:
            killed[tool.name] = bench.killed(tool)
            print(tool.name, killed[tool.name], flush=True)
    write_part(given.output, "batch-tools", page(tools, runs, killed, given.rows))
    print(f"\nWritten: {given.output}")
    return 0


def page(tools: list[Tool], runs: dict[str, list[Run]], killed: dict[str, Killed], count: int) -> str:
    """Write the part of the page."""
    rows = []
    first = median(run.wall_s for run in runs[tools[0].name])
    for tool in tools:
        wall_s = median(run.wall_s for run in runs[tool.name])
        cpu_us = median(run.cpu_s for run in runs[tool.name]) * 1e6 / count
        peak_mb = max(run.peak_mb for run in runs[tool.name])
        after = killed[tool.name]
        order = "kept" if after.is_ordered else "lost"
        rows.append(
            f"| {tool.name} {tool.version} | {count / wall_s:,.0f} | {first / wall_s:.2f} | {cpu_us:,.0f} | {peak_mb:,.0f} "
            f"| {after.missing:,} | {after.twice:,} | {order} | {after.again:,} | {tool.keeps} |"
        )
    table = "\n".join(rows)
    turns = len(runs[tools[0].name])
    return f"""## Tools that ask many prompts

{datetime.now(UTC):%Y-%m-%d}: the same {count:,} rows of half a kilobyte, an upstream that answers at once with 2.3 kB, {CONCURRENCY} asked at
one time, one core for each; the whole command from start to end, median of {turns} turns in one run. "After kills": the command
was killed with SIGKILL three times, after a quarter, a half and three quarters of its requests, and given again.
`make batch-rivals bench-batch-tools`. The script of OpenAI's cookbook begins at most 1,000 requests a second (it sleeps a
millisecond after each), asks over TLS, and begins anew whenever it is started. llm-minder is in no package index.

| | rows/s | of Tiergate's | CPU µs a row | peak MB | after kills: missing | twice | order | asked again | keeps of a row |
|---|---|---|---|---|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    sys.exit(main())
