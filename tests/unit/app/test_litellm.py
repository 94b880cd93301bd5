"""A LiteLLM file becomes ours: what is taken, what is refused, and that nothing is dropped without a word."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiergate.app.litellm import import_litellm
from tiergate.app.litellm.reading import read_litellm
from tiergate.config import Settings, load_text
from tiergate.core import CannotStart

FILE = """
model_list:
  - model_name: chat
    litellm_params: {model: hosted_vllm/Qwen/Qwen3-8B, api_base: "http://10.0.0.1:8000/v1", api_key: none,
                     max_parallel_requests: 8, rpm: 100}
  - model_name: chat
    litellm_params: {model: hosted_vllm/Qwen/Qwen3-8B, api_base: "http://10.0.0.2:8000/v1", api_key: none,
                     max_parallel_requests: 8}
  - model_name: chat
    litellm_params: {model: gpt-4.1-mini, api_key: os.environ/OPENAI_API_KEY, order: 2}
  - model_name: eu
    litellm_params: {model: azure/our-gpt, api_base: "https://ours.openai.azure.com/",
                     api_version: 2024-06-01, api_key: os.environ/AZURE_KEY_EU}
    model_info: {input_cost_per_token: 0.0000025, output_cost_per_token: 1.0e-05, base_model: azure/gpt-4o}
  - model_name: proxied
    litellm_params: {model: openai/their-model, api_base: "https://llm.example.com/v1",
                     api_key: sk-literal-0123}
  - model_name: claude
    litellm_params: {model: anthropic/claude-haiku-4-5, temperature: 0.2}
  - model_name: bed
    litellm_params: {model: bedrock/anthropic.claude-v2, aws_region_name: eu-west-1}
  - model_name: vectors
    litellm_params: {model: openai/text-embedding-3-small}
    model_info: {mode: embedding}
  - model_name: "claude-*"
    litellm_params: {model: "anthropic/claude-*"}
  - model_name: "*"
    litellm_params: {model: "openai/*", api_key: os.environ/OPENAI_API_KEY}
  - litellm_params: {model: openai/gpt-4o}
litellm_settings:
  drop_params: true
  num_retries: 9
  request_timeout: 90
  fallbacks: [{claude: [chat, nowhere]}]
  cache: true
router_settings:
  routing_strategy: least-busy
  model_group_alias: {standard: chat, broken: nowhere}
general_settings:
  master_key: sk-1234
  alerting: [slack]
environment_variables: {REDIS_HOST: cache}
guardrails: []
"""


def imported(text: str = FILE) -> Any:
    return read_litellm(yaml.safe_load(text))


@pytest.fixture
def settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Settings:
    """What the written file says, read by our own reader."""
    source, target = tmp_path / "config.yaml", tmp_path / "tiergate.yaml"
    source.write_text(FILE, encoding="utf-8")
    import_litellm(source, target, force=False, as_json=False)
    capsys.readouterr()
    names = ("OPENAI_API_KEY", "AZURE_KEY_EU", "EXAMPLE_API_KEY", "ANTHROPIC_API_KEY", "LITELLM_MASTER_KEY")
    loaded = load_text(target.read_text("utf-8"), {name: f"{name}-0123456789abcdef" for name in names})
    assert loaded.notices == ()
    return loaded.settings


def test_servers_of_one_model_become_replicas_of_a_private_provider(settings: Settings) -> None:
    """Addresses of our own networks differ in nothing else; what they bear together is the sum."""
    rack = settings.providers["vllm"]
    assert rack.replicas == ("http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1")
    assert (rack.tier, rack.engine, rack.api_keys) == ("private", "vllm", ())
    assert rack.limits.concurrency == 16


def test_deployments_and_fallbacks_become_targets_in_their_order(settings: Settings) -> None:
    """By `order` and then as in the file; the targets of a fallback come behind a model's own."""
    chat = ("vllm/Qwen/Qwen3-8B", "openai/gpt-4.1-mini")
    assert settings.models["chat"].targets == chat
    assert settings.models["claude"].targets == ("anthropic/claude-haiku-4-5", *chat)
    assert settings.models["standard"].targets == chat
    assert settings.models["*"].targets == ("openai/*",)


def test_an_azure_deployment_gets_the_v1_endpoint_and_its_own_price(settings: Settings) -> None:
    """Costs for each token become USD per million, as decimals."""
    assert settings.providers["azure"].base_url == "https://ours.openai.azure.com/openai/v1"
    (price,) = settings.prices
    assert price.target == "azure/our-gpt"
    assert price.usd_per_1m is not None
    assert (str(price.usd_per_1m.input), str(price.usd_per_1m.output)) == ("2.5", "10")


def test_a_key_that_stands_in_the_file_is_not_written_again(settings: Settings, tmp_path: Path) -> None:
    """It goes into the environment, and the notes say under which name."""
    text = (tmp_path / "tiergate.yaml").read_text("utf-8")
    assert "sk-literal" not in text and "sk-1234" not in text
    assert settings.providers["example"].base_url == "https://llm.example.com/v1"
    assert any("EXAMPLE_API_KEY" in line for line in imported().notes.lines())
    assert settings.auth == "keys" and settings.keys[0].name == "master"


def test_times_and_attempts_are_taken(settings: Settings) -> None:
    """Attempts are retries and the first; more than we make are said."""
    assert (settings.resilience.attempts, settings.resilience.total_s) == (5, 90)


@pytest.mark.parametrize(
    "place",
    [
        "bed",
        "vectors",
        "claude-*",
        "model_list[10]",
        "rpm",
        "api_version",
        "base_model",
        "temperature",
        "drop_params",
        "num_retries",
        "nowhere",
        "litellm_settings.cache",
        "routing_strategy",
        "alerting",
        "master_key",
        "REDIS_HOST",
        "guardrails",
    ],
)
def test_nothing_is_dropped_without_a_word(place: str) -> None:
    """Whatever is not taken, or means something else here, stands in the notes."""
    assert place in "\n".join(imported().notes.lines())


@pytest.mark.parametrize(
    ("params", "target", "private"),
    [
        ({"model": "ollama/llama3", "api_base": "http://localhost:11434"}, "ollama/llama3", True),
        ({"model": "openai/m", "api_base": "http://gpu-box:8001/v1"}, "gpu-box/m", True),
        ({"model": "openai/m", "api_base": "http://192.168.1.5:8001/v1"}, "local/m", True),
        ({"model": "openai/m", "api_base": "https://api.groq.com/openai/v1"}, "groq/m", False),
        ({"model": "gemini/gemini-2.5-flash"}, "google/gemini-2.5-flash", False),
        ({"model": "m", "custom_llm_provider": "deepseek"}, "deepseek/m", False),
        ({"model": "o3-mini"}, "openai/o3-mini", False),
        ({"model": "hosted_vllm/m", "api_base": "os.environ/VLLM_BASE"}, "vllm/m", False),
    ],
)
def test_whose_model_it_is(params: dict[str, Any], target: str, private: bool) -> None:
    """By prefix, address and name, as LiteLLM tells it; only an address of our own networks is private."""
    read = read_litellm({"model_list": [{"model_name": "x", "litellm_params": params}]})
    assert read.models == {"x": [target]}
    assert read.providers[0].is_private is private


@pytest.mark.parametrize(
    "params",
    [
        {"model": "vertex_ai/gemini-pro"},
        {"model": "azure/no-address"},
        {"model": "perplexity/sonar"},
        {"model": "anthropic/claude", "api_base": "https://proxy.example/anthropic"},
        {"model": "somebody/else"},
        {"model": "openai/a model"},
        {"model": 7},
    ],
)
def test_what_cannot_be_called_is_left_out_and_said(params: dict[str, Any]) -> None:
    """Rather than called at a place that was not meant."""
    read = read_litellm({"model_list": [{"model_name": "x", "litellm_params": params}]})
    assert not read.providers and not read.models
    assert len(read.notes.lines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_list: [", "config.yaml:1:"),
        ("a: b", "has no `model_list`"),
        ("[1, 2]", "has no `model_list`"),
        ("model_list: []", "Nothing in"),
        ("model_list: [3, {}, {model_name: x, litellm_params: []}]", "Nothing in"),
        ("model_list: !!python/object/apply:os.system ['true']", "is no YAML"),
        ("[" * 5000, "is no YAML"),
    ],
)
def test_a_file_that_is_none_gets_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    """And nothing is written."""
    source, target = tmp_path / "config.yaml", tmp_path / "tiergate.yaml"
    source.write_text(text, encoding="utf-8")
    with pytest.raises(CannotStart, match=re.escape(said)):
        import_litellm(source, target, force=False, as_json=False)
    assert not target.exists()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """Unless it is told to be replaced."""
    source, target = tmp_path / "config.yaml", tmp_path / "tiergate.yaml"
    source.write_text(FILE, encoding="utf-8")
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(CannotStart, match="--force"):
        import_litellm(source, target, force=False, as_json=False)
    assert target.read_text("utf-8") == "mine"
    import_litellm(source, target, force=True, as_json=True)
    assert "providers:" in target.read_text("utf-8")


def test_a_missing_file_gets_a_sentence(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(CannotStart, match="cannot be read"):
        import_litellm(tmp_path / "none.yaml", tmp_path / "out.yaml", force=False, as_json=False)
