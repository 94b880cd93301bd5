"""Who sells or serves models, as rows: where they are, what their key is called, what is odd about them.

A vendor is known by the host of its address and never by the name that a settings file gives to a provider:
behind a name may be a proxy with other prices. A new vendor is a row here, and its
usage object in `tests/unit/wire/test_dialects.py`; docs/prices.md says how.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from tiergate.core import Tier

_CHECKED: Final = date(2026, 11, 26)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """Somebody's API, or a kind of inference server.

    Attributes:
        name: what a provider of it is called unless the user chooses another name.
        title: how people call it.
        base_url: of an OpenAI-compatible API, up to and with the version; of a server its address on this
            machine with the port that it takes by default. `RESOURCE` stands for a name of the user's own.
        key_variable: the environment variable that its own documentation uses; None: it needs no key.
        key_prefix: how its keys begin, where it says so.
        tier: hosted, or private for a server of our own.
        engine: the word for it in `providers.NAME.engine`.
        reseller: whether prompts pass a third party on their way to the model's maker.
        prices: the name of its prices in the bundled price data; None: there are none.
        reports_cost: `usage.cost` in its replies is what it will invoice, in USD.
        takes_stream_options: whether streams are asked for their usage by `stream_options.include_usage`; one
            that refuses the option reports usage by itself.
        done_marker: whether its streams end with `[DONE]`.
        lists_models: whether `GET /models` gives what can be called.
        unsupported: fields of a question that its documentation says are ignored or refused.
        models: some that it serves, the first a cheap one to try; empty where they are the user's own.
        pages: where all this was read, and the page with its prices.
        checked: when.
    """

    name: str
    title: str
    base_url: str
    key_variable: str | None = None
    key_prefix: str = ""
    tier: Tier = Tier.HOSTED
    engine: str | None = None
    reseller: bool = False
    prices: str | None = None
    reports_cost: bool = False
    takes_stream_options: bool = True
    done_marker: bool = True
    lists_models: bool = True
    unsupported: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    checked: date = _CHECKED

    @property
    def host(self) -> str:
        """The host by which it is recognised; empty for servers of our own, which can be anywhere."""
        return "" if self.tier is Tier.PRIVATE else (urlsplit(self.base_url).hostname or "").lower()


VENDORS: Final = (
    Vendor(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        key_prefix="sk-",
        prices="openai",
        models=("gpt-4.1-nano", "gpt-4.1-mini", "gpt-4.1"),
        pages=(
            "https://platform.openai.com/docs/api-reference/chat",
            "https://developers.openai.com/api/docs/pricing",
        ),
    ),
    Vendor(
        name="anthropic",
        title="Anthropic (OpenAI-compatible endpoint)",
        base_url="https://api.anthropic.com/v1",
        key_variable="ANTHROPIC_API_KEY",
        key_prefix="sk-ant-",
        prices="anthropic",
        # Ignored without a word, but for `n`, which must be 1. `strict` of a tool is ignored too.
        unsupported=(
            "audio",
            "frequency_penalty",
            "logit_bias",
            "logprobs",
            "metadata",
            "modalities",
            "n",
            "prediction",
            "presence_penalty",
            "reasoning_effort",
            "response_format",
            "seed",
            "service_tier",
            "top_logprobs",
        ),
        models=("claude-haiku-4-5", "claude-sonnet-4-5"),
        pages=(
            "https://platform.claude.com/docs/en/api/openai-sdk",
            "https://platform.claude.com/docs/en/about-claude/pricing",
        ),
    ),
    Vendor(
        name="google",
        title="Google Gemini (OpenAI-compatible endpoint)",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variable="GEMINI_API_KEY",
        key_prefix="AIza",
        prices="google",
        models=("gemini-2.5-flash-lite", "gemini-2.5-flash", "gemini-2.5-pro"),
        pages=(
            "https://ai.google.dev/gemini-api/docs/openai",
            "https://ai.google.dev/gemini-api/docs/pricing",
        ),
    ),
    Vendor(
        name="deepseek",
        title="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        key_prefix="sk-",
        prices="deepseek",
        models=("deepseek-flash", "deepseek-v4-pro"),
        pages=("https://api-docs.deepseek.com/quick_start/pricing",),
    ),
    Vendor(
        name="holysheep",
        title="HolySheep",
        base_url="https://api.holysheep.ai/v1",
        key_variable="HOLYSHEEP_API_KEY",
        reseller=True,
        models=("deepseek-v3.2", "gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash"),
        pages=("https://www.holysheep.ai",),
    ),
    Vendor(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        key_prefix="sk-or-",
        reseller=True,
        prices="openrouter",
        reports_cost=True,
        models=("openai/gpt-4.1-mini", "google/gemini-2.5-flash"),
        pages=(
            "https://openrouter.ai/docs/api-reference/overview",
            "https://openrouter.ai/docs/use-cases/usage-accounting",
        ),
    ),
    Vendor(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        key_prefix="gsk_",
        prices="groq",
        # Refused with 400, and `n` must be 1.
        unsupported=("logit_bias", "logprobs", "n", "top_logprobs"),
        models=("llama-3.1-8b-instant", "llama-3.3-70b-versatile"),
        pages=("https://console.groq.com/docs/openai", "https://groq.com/pricing"),
    ),
    Vendor(
        name="together",
        title="Together AI",
        base_url="https://api.together.xyz/v1",
        key_variable="TOGETHER_API_KEY",
        prices="together",
        models=("meta-llama/Llama-3.3-70B-Instruct-Turbo",),
        pages=("https://docs.together.ai/docs/openai-api-compatibility", "https://www.together.ai/pricing"),
    ),
    Vendor(
        name="fireworks",
        title="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        key_variable="FIREWORKS_API_KEY",
        key_prefix="fw_",
        prices="fireworks",
        models=("accounts/fireworks/models/deepseek-v3p2",),
        pages=(
            "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
            "https://fireworks.ai/pricing",
        ),
    ),
    Vendor(
        name="mistral",
        title="Mistral AI",
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        prices="mistral",
        # Usage comes with the last chunk by itself, and the option is refused with 422.
        takes_stream_options=False,
        models=("mistral-small-latest", "mistral-large-latest"),
        pages=("https://docs.mistral.ai/api", "https://mistral.ai/pricing"),
    ),
    Vendor(
        name="xai",
        title="xAI",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        key_prefix="xai-",
        prices="x-ai",
        models=("grok-3-mini", "grok-4"),
        pages=("https://docs.x.ai/docs/api-reference", "https://docs.x.ai/docs/models"),
    ),
    Vendor(
        name="azure",
        title="Azure OpenAI (v1 endpoint)",
        base_url="https://RESOURCE.openai.azure.com/openai/v1",
        key_variable="AZURE_OPENAI_API_KEY",
        prices="azure",
        pages=("https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",),
    ),
    Vendor(
        name="vllm",
        title="vLLM",
        base_url="http://127.0.0.1:8000/v1",
        tier=Tier.PRIVATE,
        engine="vllm",
        pages=("https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",),
    ),
    Vendor(
        name="sglang",
        title="SGLang",
        base_url="http://127.0.0.1:30000/v1",
        tier=Tier.PRIVATE,
        engine="sglang",
        pages=("https://docs.sglang.ai/basic_usage/openai_api_completions.html",),
    ),
    Vendor(
        name="llamacpp",
        title="llama.cpp server",
        base_url="http://127.0.0.1:8080/v1",
        tier=Tier.PRIVATE,
        engine="llamacpp",
        pages=("https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",),
    ),
    Vendor(
        name="ollama",
        title="Ollama",
        base_url="http://127.0.0.1:11434/v1",
        tier=Tier.PRIVATE,
        engine="ollama",
        pages=("https://docs.ollama.com/api/openai-compatibility",),
    ),
    Vendor(
        name="transformers",
        title="transformers serve",
        base_url="http://127.0.0.1:8000/v1",
        tier=Tier.PRIVATE,
        engine="transformers",
        done_marker=False,
        lists_models=False,
        pages=("https://huggingface.co/docs/transformers/serving",),
    ),
)


def vendor_named(name: str) -> Vendor | None:
    """Give the vendor of a name."""
    return _BY_NAME.get(name)


def vendor_at(urls: Iterable[str]) -> Vendor | None:
    """Tell whose API is at these addresses; None where it is nobody's that is listed, or they disagree."""
    found = {_vendor_of_host((urlsplit(url).hostname or "").lower()) for url in urls}
    return found.pop() if len(found) == 1 else None


def _vendor_of_host(host: str) -> Vendor | None:
    vendor = _BY_HOST.get(host)
    if vendor is None and host.endswith(_AZURE_SUFFIXES):
        return _BY_NAME["azure"]
    return vendor


_BY_NAME: Final = {vendor.name: vendor for vendor in VENDORS}
_BY_HOST: Final = {vendor.host: vendor for vendor in VENDORS if vendor.host}
_AZURE_SUFFIXES: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
