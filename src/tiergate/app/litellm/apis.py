"""Whose API a LiteLLM deployment calls: told from the prefix of its model, as LiteLLM does."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tiergate.catalog import Vendor, vendor_named

_VENDORS: Final = {
    "openai": "openai",
    "azure": "azure",
    "anthropic": "anthropic",
    "gemini": "google",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "groq": "groq",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "mistral": "mistral",
    "xai": "xai",
    "hosted_vllm": "vllm",
    "vllm": "vllm",
    "ollama": "ollama",
    "ollama_chat": "ollama",
}
"""Prefixes, and the vendor that is meant. https://docs.litellm.ai/docs/providers, read 2026-11-26."""

_COMPATIBLE: Final = frozenset(
    {"openai_like", "custom_openai", "litellm_proxy", "lm_studio", "llamafile", "nvidia_nim", "perplexity",
     "cerebras", "sambanova", "deepinfra", "hyperbolic", "nebius", "novita", "featherless_ai", "github",
     "moonshot", "dashscope", "zai", "minimax", "lambda_ai", "nscale", "baseten", "volcengine"}
)  # fmt: skip
"""Prefixes of other APIs that speak OpenAI's dialect, at an address that must be given."""

_FOREIGN: Final = frozenset(
    {"bedrock", "bedrock_converse", "vertex_ai", "vertex_ai_beta", "sagemaker", "sagemaker_chat", "cohere",
     "cohere_chat", "huggingface", "replicate", "watsonx", "palm", "ai21", "ai21_chat", "nlp_cloud",
     "aleph_alpha", "cloudflare", "databricks", "predibase", "triton", "snowflake", "oci", "petals",
     "text-completion-openai", "azure_ai", "azure_text", "clarifai", "voyage", "jina_ai", "infinity",
     "github_copilot", "chatgpt"}
)  # fmt: skip
"""Prefixes of APIs that speak other dialects, or need another way to say who calls."""

_GUESSED: Final = (
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("claude-", "anthropic"),
    ("deepseek-", "deepseek"),
    ("grok-", "xai"),
)
"""How names without a prefix begin, and whose they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Whose API a model is called at, and its name there; `vendor` None: nobody's that is known."""

    vendor: Vendor | None
    upstream: str


def api_of(model: str, *, named: object, has_address: bool) -> Api | str:
    """Tell whose API a model's name means, or why there is no counterpart.

    Args:
        model: as `litellm_params.model` has it.
        named: `custom_llm_provider`, which goes before the prefix.
        has_address: whether the deployment says where the API is.
    """
    prefix, _, rest = model.partition("/")
    if isinstance(named, str) and named:
        prefix, rest = named, model.removeprefix(f"{named}/")
    if prefix in _VENDORS and rest:
        return Api(vendor=vendor_named(_VENDORS[prefix]), upstream=rest)
    if prefix in _FOREIGN:
        return (
            f"`{prefix}` does not speak OpenAI's dialect; if it has such an address, add it under `providers`"
        )
    if prefix in _COMPATIBLE and rest:
        if has_address:
            return Api(vendor=None, upstream=rest)
        return f"the address of `{prefix}` is not known here: add it under `providers` with its `base_url`"
    guessed = next((vendor for begin, vendor in _GUESSED if model.startswith(begin)), None)
    if guessed is not None:
        return Api(vendor=vendor_named(guessed), upstream=model)
    if has_address:
        return Api(vendor=vendor_named("openai"), upstream=model)
    return f"whose model {model!r} is cannot be told: add it under `providers` with its `base_url`"


def address_of(vendor: Vendor | None, api_base: str | None) -> str | None:
    """Give the base URL to call; None: the vendor speaks OpenAI's dialect at its own address only."""
    if api_base is None:
        return None if vendor is None or "RESOURCE" in vendor.base_url else vendor.base_url
    base = api_base.rstrip("/").removesuffix("/chat/completions")
    name = "" if vendor is None else vendor.name
    parts = urlsplit(base)
    if name == "azure":
        stem = f"{parts.scheme}://{parts.netloc}" if parts.netloc else base
        return stem.removesuffix("/openai/v1") + "/openai/v1"
    if name in ("anthropic", "google") and vendor is not None:
        return vendor.base_url if parts.hostname == vendor.host else None
    if name == "ollama" and not base.endswith("/v1"):
        return base + "/v1"
    return base
