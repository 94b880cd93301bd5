"""One gateway for all flow tests, in front of a scripted provider and of one that keeps what it was sent."""

from collections.abc import Iterator

import pytest

from flow.recorder import Recorder
from house import NO_BREAKERS, GatewayProcess
from tiergate.testing import MockProcess

KEY = "flow-client-key-0123456789abcdef"

SCRIPT = """
seed: 3
default: {words: 12}
rules:
  - {when: {model: slow}, then: {words: 400, tokens_per_s: 25}}
  - {when: {model: silent}, then: {hang: true}}
  - when: {model: rejects}
    then: {status: 400, error: {message: Too many stops., param: stop, code: bad_stop}}
  - {when: {model: throttles}, then: {status: 429, headers: {retry-after: 9}}}
  - {when: {model: fails}, then: {status: 500}}
  - {when: {model: overloaded}, then: {status: 503}}
  - {when: {model: unauthorized}, then: {status: 401}}
  - {when: {model: cut}, then: {clean_cut_after: 4}}
  - {when: {model: thinks}, then: {reasoning: "First this, then that.", reply: "So it is."}}
"""

WORDS_OF_THE_MOCK = (
    "slow",
    "silent",
    "rejects",
    "throttles",
    "fails",
    "overloaded",
    "unauthorized",
    "cut",
    "thinks",
)


@pytest.fixture(scope="session")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="session")
def recorder() -> Iterator[Recorder]:
    with Recorder() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def gateway(
    mock: MockProcess, recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    settings = {
        "auth": "keys",
        "keys": [{"name": "flow", "secret": KEY, "team": "web"}],
        "providers": {
            "main": {"base_url": mock.base_url, "api_keys": ["sk-provider-main-0123456789"]},
            "kept": {"base_url": recorder.base_url, "api_keys": ["sk-provider-kept-0123456789"]},
            "rack": {"base_url": mock.base_url, "tier": "private"},
        },
        "models": {
            "good": {"targets": ["main/good"]},
            "org/good-7b": {"targets": ["rack/org/good-7b", "main/good"]},
            "kept": {"targets": ["kept/upstream-name"]},
        }
        | {name: {"targets": [f"main/{name}"]} for name in WORDS_OF_THE_MOCK},
        "prices": [{"target": "main/good", "usd_per_1m": {"input": 1, "output": 2}}],
        "resilience": NO_BREAKERS,
    }
    with GatewayProcess(tmp_path_factory.mktemp("flow"), settings) as process:
        yield process
