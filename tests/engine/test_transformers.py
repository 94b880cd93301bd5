"""A real inference engine behind the gateway: `transformers serve` with a tiny model of random weights.

It is a good engine to test with because it is as real engines are: usage rides on the chunk with the finish
reason, there is no [DONE], and `/v1/models` may fail.
"""

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from house import GatewayProcess, until

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(os.environ.get("TIERGATE_ENGINE", ROOT / ".venv-engine")) / "bin"
MESSAGES = [{"role": "user", "content": "Say anything."}]
_START_S = 120.0

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not (ENGINE / "transformers").exists(), reason="no engine installed; `make test-engine` installs one"
    ),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A running engine: its base URL and its model's name."""
    folder = tmp_path_factory.mktemp("engine")
    model = str(folder / "tiny")
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    maker = Path(__file__).with_name("make_model.py")
    subprocess.run(
        [ENGINE / "python", maker, model], env=environ, check=True, capture_output=True, timeout=120
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--device", "cpu", "--continuous-batching", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            [ENGINE / "transformers", "serve", model, *options],
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _until_healthy(f"http://127.0.0.1:{port}/health", process, folder / "engine.log")
            yield f"http://127.0.0.1:{port}/v1", model
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def gateway(engine: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway in front of it."""
    base_url, model = engine
    settings = {
        "providers": {
            "rack": {
                "base_url": base_url,
                "tier": "private",
                "engine": "transformers",
                "limits": {"concurrency": 4},
            }
        },
        "models": {"tiny": {"targets": [f"rack/{model}"]}},
    }
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> openai.OpenAI:
    """The official client, pointed at the gateway."""
    return openai.OpenAI(base_url=gateway.base_url, api_key="any", timeout=90, max_retries=0)


def test_a_whole_answer(client: openai.OpenAI) -> None:
    """The engine's answer arrives with its usage, and costs nothing per call."""
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=MESSAGES, max_tokens=8)
    answer = raw.parse()
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert raw.headers["x-tiergate-tier"] == "private"
    assert float(raw.headers["x-tiergate-cost-usd"]) == 0


def test_a_stream_equals_the_whole_answer(client: openai.OpenAI) -> None:
    """Greedy decoding gives the same text streamed or not, and the stream's usage is reported."""
    asked = {"model": "tiny", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [
        whole.usage.completion_tokens
    ]


def test_many_calls_at_once(gateway: GatewayProcess) -> None:
    """More calls than the engine may take at once all end well: they wait for their place."""

    async def ask_all() -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=gateway.base_url, api_key="any", timeout=90, max_retries=0
        ) as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4)
                    for _ in range(8)
                )
            )
        return [answer.choices[0].finish_reason for answer in answers]

    assert set(asyncio.run(ask_all())) <= {"length", "stop"}


def test_leaving_a_stream_is_booked(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    """A client that leaves ends its call as client_closed, and the next call is served."""
    with client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=1500, stream=True
    ) as stream:
        next(iter(stream))
    ends = until(
        lambda: [line["end"] for line in gateway.log() if line.get("end") == "client_closed"] or None
    )
    assert ends == ["client_closed"]
    assert client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=2).choices


def _until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"the engine did not start: {log.read_text(errors='replace')[-2000:]}")
