"""Reads a LiteLLM file into providers, models and prices of ours, and notes what has no counterpart."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

from tiergate.app.litellm.apis import Api, address_of, api_of
from tiergate.app.litellm.notes import NO_COUNTERPART, Notes
from tiergate.catalog import Vendor, vendor_at
from tiergate.config import is_inside

_NAME: Final = re.compile(r"[!-~]{1,200}")
_FROM_ENVIRONMENT: Final = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_NO_KEYS: Final = frozenset(
    {"", "empty", "none", "null", "dummy", "fake", "fake-key", "not-needed", "no-key", "nokey", "na", "n/a",
     "ollama", "sk-no-key-required", "any", "anything", "xxx", "sk-xxx", "sk-1234", "test"}
)  # fmt: skip
"""What people write where a server wants no key."""
_RATES: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_in",
    "output_cost_per_audio_token": "audio_out",
}
_TAKEN: Final = frozenset(
    {"model", "api_base", "base_url", "api_key", "custom_llm_provider", "order", "max_parallel_requests",
     "mode", *_RATES}
)  # fmt: skip
_CHAT: Final = (None, "", "chat", "responses", "completion")


@dataclass(slots=True)
class Found:
    """A provider: where, with which key, and of whom; `concurrency` is the sum of its deployments'."""

    name: str
    urls: tuple[str, ...]
    variable: str | None
    vendor: Vendor | None
    is_private: bool
    engine: str | None
    concurrency: int = 0


@dataclass(slots=True)
class Imported:
    """What was read of a LiteLLM file."""

    providers: list[Found] = field(default_factory=list)
    models: dict[str, list[str]] = field(default_factory=dict)
    prices: dict[str, dict[str, str]] = field(default_factory=dict)
    resilience: dict[str, str] = field(default_factory=dict)
    master_key: str | None = None
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    place: str
    model: str
    api: Api
    url: str
    key: object
    order: float
    params: Mapping[str, Any]


def read_litellm(document: Mapping[str, Any]) -> Imported:
    """Read the file's content. Whatever is not taken stands in the notes."""
    imported = Imported()
    listed = list(_deployments(document.get("model_list"), imported.notes))
    groups: dict[str, list[_Deployment]] = {}
    for one in sorted(listed, key=lambda one: one.order):
        groups.setdefault(one.model, []).append(one)
    for model in dict.fromkeys(one.model for one in listed):  # in the order of the file
        _take_group(model, groups[model], imported)
    sections = {
        name: _mapping(document.get(name))
        for name in ("litellm_settings", "router_settings", "general_settings")
    }
    _take_aliases(sections["router_settings"].get("model_group_alias"), imported)
    for name in ("litellm_settings", "router_settings"):
        _take_fallbacks(name, sections[name], imported)
        _take_times(name, sections[name], imported)
    _take_master_key(sections["general_settings"], imported)
    for name, section in sections.items():
        imported.notes.rest(name, section, _SECTION_TAKEN)
    for name in _mapping(document.get("environment_variables")):
        imported.notes.say(
            f"environment_variables.{name}", "put it into the environment, or into `.env` beside the file"
        )
    imported.notes.rest("the file", dict(document), _DOCUMENT_TAKEN)
    return imported


_SECTION_TAKEN: Final = frozenset(
    {"fallbacks", "default_fallbacks", "num_retries", "request_timeout", "model_group_alias", "master_key"}
)
_DOCUMENT_TAKEN: Final = frozenset(
    {"model_list", "litellm_settings", "router_settings", "general_settings", "environment_variables"}
)


def _mapping(value: object) -> dict[str, Any]:
    return {str(name): one for name, one in value.items()} if isinstance(value, dict) else {}


def _deployments(listed: object, notes: Notes) -> Iterator[_Deployment]:
    for number, entry in enumerate(map(_mapping, listed if isinstance(listed, list) else [])):
        params, info = _mapping(entry.get("litellm_params")), _mapping(entry.get("model_info"))
        name, model = entry.get("model_name"), params.get("model")
        place = f"model_list[{number}]"
        if not isinstance(name, str) or not isinstance(model, str) or not _NAME.fullmatch(name):
            notes.say(place, "needs `model_name` and `litellm_params.model`, without spaces")
            continue
        place = f"{place} ({name})"
        if info.get("mode") not in _CHAT:
            notes.say(place, f"only chat is served; this is for {info['mode']}")
            continue
        base = params.get("api_base") or params.get("base_url")
        api = api_of(model, named=params.get("custom_llm_provider"), has_address=isinstance(base, str))
        if isinstance(api, str):
            notes.say(place, api)
            continue
        url = address_of(api.vendor, _filled(base) if isinstance(base, str) else None)
        if url is None or not _NAME.fullmatch(api.upstream):
            notes.say(place, "has no address at which OpenAI's dialect is known to be spoken, or an odd name")
            continue
        notes.rest(place, params, _TAKEN)
        notes.rest(f"{place} model_info", info, _TAKEN)
        order = params.get("order")
        yield _Deployment(
            place=place,
            model=name,
            api=api,
            url=url,
            key=params.get("api_key"),
            order=order if isinstance(order, int | float) else 0,
            params={**info, **params},
        )


def _filled(text: str) -> str:
    return _FROM_ENVIRONMENT.sub(lambda match: f"${{{match[1]}}}", text)


def _take_group(model: str, group: list[_Deployment], imported: Imported) -> None:
    if "*" in model or any("*" in one.api.upstream for one in group):
        _take_pattern(model, group, imported)
        return
    replicas: dict[tuple[object, ...], list[_Deployment]] = {}
    for one in group:
        apart = None if is_inside(one.url) else one.url
        replicas.setdefault((apart, one.api.upstream, str(one.key)), []).append(one)
    targets = []
    for alike in replicas.values():
        provider = _provider(alike, imported)
        target = f"{provider.name}/{alike[0].api.upstream}"
        targets.append(target)
        if not provider.is_private:
            _take_price(target, alike[0], imported)
    imported.models[model] = list(dict.fromkeys(targets))
    if len(targets) > 1:
        imported.notes.say(
            model, "LiteLLM spreads calls over its deployments; here they are tried in this order"
        )


def _take_pattern(model: str, group: list[_Deployment], imported: Imported) -> None:
    first = group[0]
    provider = _provider([first], imported)
    if model == "*" and first.api.upstream == "*":
        imported.models["*"] = [f"{provider.name}/*"]
    elif model == f"{provider.name}/*" and first.api.upstream == "*":
        pass  # provider/upstream-name is always valid
    elif model == "*" and "*" not in first.api.upstream:
        imported.notes.say(
            first.place, "`*` passes every name on as it is; one model for all names " + NO_COUNTERPART
        )
    else:
        imported.notes.say(
            first.place,
            f"patterns have no counterpart but `*`; its models can be called as {provider.name}/their-name",
        )


def _provider(alike: list[_Deployment], imported: Imported) -> Found:
    """Find the provider of these deployments, which differ in their address only, or add it."""
    first = alike[0]
    urls = tuple(dict.fromkeys(one.url for one in alike))
    vendor = vendor_at(urls)
    variable = _variable(first, vendor, imported)
    known = next((one for one in imported.providers if (one.urls, one.variable) == (urls, variable)), None)
    if known is None:
        is_private = all(is_inside(url) for url in urls) and "${" not in urls[0]
        engine = first.api.vendor.engine if first.api.vendor is not None else None
        taken = {one.name for one in imported.providers}
        known = Found(
            name=_free(_stem(first, vendor), taken),
            urls=urls,
            variable=variable,
            vendor=vendor,
            is_private=is_private,
            engine=engine if is_private else None,
        )
        imported.providers.append(known)
        if "${" in urls[0]:
            imported.notes.say(known.name, "if its address is one of your own servers, write `tier: private`")
    for one in alike:
        most = one.params.get("max_parallel_requests")
        known.concurrency += most if type(most) is int and most > 0 else 0
    return known


def _variable(one: _Deployment, vendor: Vendor | None, imported: Imported) -> str | None:
    """Give the environment variable of the key; one that stands in the file itself is not written again."""
    if one.key is None:
        return None if vendor is None else vendor.key_variable
    key = str(one.key).strip()
    from_environment = _FROM_ENVIRONMENT.fullmatch(key) or re.fullmatch(
        r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", key
    )
    if from_environment is not None:
        return from_environment[1]
    if key.lower() in _NO_KEYS:
        return None
    variable = re.sub(r"[^A-Z0-9]", "_", _stem(one, vendor).upper()) + "_API_KEY"
    imported.notes.say(
        one.place, f"its key stands in the file: put it into the environment or `.env` as {variable}"
    )
    return variable


def _stem(one: _Deployment, vendor: Vendor | None) -> str:
    """Give a provider a name: its vendor's, its engine's, or that of its host."""
    if vendor is not None:
        return vendor.name
    if one.api.vendor is not None and one.api.vendor.engine is not None:
        return one.api.vendor.engine
    host = urlsplit(one.url).hostname or ""
    labels = [label for label in re.sub(r"[^a-z0-9.-]", "", host).split(".") if label]
    if not labels or host == "localhost" or re.fullmatch(r"[0-9.]+", host):
        return "local"
    return (labels[-2] if len(labels) > 1 and not is_inside(one.url) else labels[0])[:40] or "local"


def _free(stem: str, taken: set[str]) -> str:
    return next(
        name for n in range(1, len(taken) + 2) if (name := stem if n == 1 else f"{stem}-{n}") not in taken
    )


def _take_price(target: str, one: _Deployment, imported: Imported) -> None:
    rates = {}
    for word, bucket in _RATES.items():
        value = one.params.get(word)
        if value is None or isinstance(value, bool):
            continue
        try:
            usd = Decimal(str(value)) * 1_000_000
        except InvalidOperation:
            usd = Decimal(-1)
        if not usd.is_finite() or usd < 0:
            imported.notes.say(f"{one.place}.{word}", "is no price")
            return
        rates[bucket] = format(usd.normalize(), "f")
    if "input" in rates and "output" in rates:
        imported.prices.setdefault(target, rates)
    elif rates:
        imported.notes.say(one.place, "its price needs both input_cost_per_token and output_cost_per_token")


def _take_aliases(aliases: object, imported: Imported) -> None:
    for alias, of in _mapping(aliases).items():
        model = of.get("model") if isinstance(of, dict) else of
        if _NAME.fullmatch(alias) and model in imported.models:
            imported.models.setdefault(alias, list(imported.models[model]))
        else:
            imported.notes.say(f"model_group_alias.{alias}", f"there is no model {model!r}")


def _take_fallbacks(section: str, said: Mapping[str, Any], imported: Imported) -> None:
    """Put the targets of a fallback behind a model's own."""
    own = {model: list(targets) for model, targets in imported.models.items()}
    listed = said.get("fallbacks")
    pairs = [
        pair for entry in (listed if isinstance(listed, list) else []) for pair in _mapping(entry).items()
    ]
    default = said.get("default_fallbacks")
    if isinstance(default, list):
        named = {model for model, _ in pairs}
        pairs += [(model, default) for model in own if model not in named and model not in default]
    for model, fallbacks in pairs:
        for fallback in fallbacks if isinstance(fallbacks, list) else [fallbacks]:
            if model not in own or fallback not in own:
                missing = model if model not in own else fallback
                imported.notes.say(f"{section}.fallbacks", f"there is no model {missing!r}")
                continue
            targets = imported.models[model]
            targets += [target for target in own[fallback] if target not in targets]


def _take_times(section: str, said: Mapping[str, Any], imported: Imported) -> None:
    retries: object = said.get("num_retries")
    seconds: object = said.get("request_timeout", said.get("timeout"))
    if isinstance(retries, int) and not isinstance(retries, bool) and retries >= 0:
        imported.resilience["attempts"] = str(min(5, retries + 1))
        if retries > 4:
            imported.notes.say(f"{section}.num_retries", "at most 5 attempts are made")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 1 <= seconds <= 3600:
        imported.resilience["total_s"] = f"{seconds:g}"


def _take_master_key(said: Mapping[str, Any], imported: Imported) -> None:
    key = said.get("master_key")
    if key is None:
        return
    from_environment = _FROM_ENVIRONMENT.fullmatch(str(key).strip())
    imported.master_key = "LITELLM_MASTER_KEY" if from_environment is None else from_environment[1]
    if from_environment is None:
        imported.notes.say(
            "general_settings.master_key",
            "stands in the file: put it into the environment or `.env` as LITELLM_MASTER_KEY",
        )
    imported.notes.say(
        "general_settings.master_key", "becomes the only key; keys that LiteLLM made stand in its database"
    )
