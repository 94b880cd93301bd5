"""What this machine offers without a settings file: keys in the environment, servers on the well-known ports.

Nothing is written, and nothing but this machine is asked. What is found is written down as the text of a
settings file, which is read like any other: `tiergate serve` starts from it, `tiergate init` saves it.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from textwrap import fill
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from tiergate.catalog import VENDORS, Vendor, vendor_at, vendor_named
from tiergate.core import CannotStart, Tier, UpstreamError
from tiergate.upstream import Endpoint, Origin, Timing, Transport, open_transport
from tiergate.wire import loads

PROBE_S: Final = 0.5
"""A server on this machine answers within milliseconds, or it is not there."""
_LIST_BYTES_MAX: Final = 1 << 20
_MODELS_MAX: Final = 50
_NAME: Final = re.compile(r"[!#%-~]{1,200}")
"""What a settings file takes as a model's name, without what would be a reference or end a quotation."""
_KEY: Final = re.compile(r"[!-~]{1,4096}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_ELSEWHERE: Final = {"openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE")}
"""Variables by which the official clients are sent elsewhere: a key beside them belongs there."""
_AZURE_ENDPOINT: Final = "AZURE_OPENAI_ENDPOINT"
_OWNERS: Final = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp", "library": "ollama"}
"""How servers name themselves as the owner of their models (`owned_by`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A provider that can be used: a vendor whose key is set, or a server that answers."""

    vendor: Vendor
    base_url: str
    models: tuple[str, ...]


async def discover(environ: Mapping[str, str], *, ports: Sequence[int] | None = None) -> list[Found]:
    """Find hosted vendors by their keys and servers of this machine by asking for their models.

    Args:
        environ: where keys may be.
        ports: to look at; None: those that the servers of the catalog take by default.
    """
    hosted = [found for vendor in VENDORS if (found := _hosted(vendor, environ)) is not None]
    if ports is None:
        ports = sorted({urlsplit(one.base_url).port or 0 for one in VENDORS if one.tier is Tier.PRIVATE})
    transport = open_transport()
    try:
        answers = await asyncio.gather(*[_server_at(port, transport) for port in ports])
    finally:
        await transport.aclose()
    return [*hosted, *[found for found in answers if found is not None]]


def settings_text(found: Sequence[Found]) -> str:
    """Write what was found as a settings file, each part with a word on it."""
    lines = [
        "# Settings of Tiergate. `tiergate check` validates them, `tiergate schema` describes every key.",
        "# The reference is docs/reference/settings.md.",
        "",
        "listen: 127.0.0.1:4400          # where clients find the gateway",
        "",
        "providers:                      # who can answer; keys stay in the environment or in .env",
    ]
    names = _names(found)
    for name, one in zip(names, found, strict=True):
        lines += _provider_lines(name, one)
    lines += [
        "",
        "models:                         # names for callers; provider/upstream-name is always valid too",
    ]
    targets: dict[str, list[str]] = {}
    for name, one in zip(names, found, strict=True):
        for model in one.models:
            targets.setdefault(model, []).append(_quoted(f"{name}/{model}"))
    lines += [f"  {_quoted(model)}: {{targets: [{', '.join(behind)}]}}" for model, behind in targets.items()]
    if not targets:
        lines[-1] = "models: {}                      # e.g.  chat: {targets: [PROVIDER/MODEL, OTHER/MODEL]}"
    lines += [
        "",
        "# Prices of the large vendors are known; add those of others, and rows of yours win:",
        "# prices:",
        "#   - {target: PROVIDER/MODEL, usd_per_1m: {input: 0.14, output: 0.28}, source: where you read it}",
        "",
        "# Keys for callers; without them everybody on this machine may call, and nobody else:",
        "# auth: keys",
        '# keys: [{name: me, secret: "${MY_KEY}"}]',
    ]
    return "\n".join(lines) + "\n"


def nothing_found() -> str:
    """Say that there is nothing to start with, and how to go on."""
    keys = ", ".join(vendor.key_variable for vendor in VENDORS if vendor.key_variable)
    servers = [vendor for vendor in VENDORS if vendor.tier is Tier.PRIVATE]
    ports = ", ".join(f"{one.title} {urlsplit(one.base_url).port}" for one in servers)
    return (
        "There is no settings file here, no API key in the environment and no model server on this machine.\n"
        "One of these is enough:\n"
        f"  a key      {fill(keys, 90, subsequent_indent=' ' * 13)}\n"
        f"             ({_AZURE_ENDPOINT} beside the last one)\n"
        f"  a server   {fill(ports, 90, subsequent_indent=' ' * 13)}\n"
        "  a file     tiergate.yaml; `tiergate init` writes one from the first two\n"
        "To see everything at work without any of them: tiergate demo"
    )


def _hosted(vendor: Vendor, environ: Mapping[str, str]) -> Found | None:
    if vendor.tier is not Tier.HOSTED or vendor.key_variable is None:
        return None
    key = environ.get(vendor.key_variable, "")
    if not key.strip():
        return None
    if not _KEY.fullmatch(key):
        raise CannotStart(
            f"{vendor.key_variable} holds a space, a line break or another character that no key has; look "
            "at its ends, or unset it."
        )
    if "RESOURCE" in vendor.base_url:
        endpoint = _address(_AZURE_ENDPOINT, environ)
        if endpoint is None:
            return None
        base_url = endpoint.removesuffix("/openai/v1") + "/openai/v1"
        return Found(vendor=vendor, base_url=base_url, models=vendor.models)
    for variable in _ELSEWHERE.get(vendor.name, ()):
        elsewhere = _address(variable, environ)
        if elsewhere is not None and vendor_at([elsewhere]) is not vendor:
            return Found(vendor=vendor, base_url=elsewhere, models=())  # the key is meant for that address
    return Found(vendor=vendor, base_url=vendor.base_url, models=vendor.models)


def _address(variable: str, environ: Mapping[str, str]) -> str | None:
    url = environ.get(variable, "").strip().rstrip("/")
    if url and not _URL.fullmatch(url):
        raise CannotStart(f"{variable} is no address such as https://host.example/v1; correct or unset it.")
    return url or None


async def _server_at(port: int, transport: Transport) -> Found | None:
    candidates = [
        vendor for vendor in VENDORS if vendor.tier is Tier.PRIVATE and urlsplit(vendor.base_url).port == port
    ]
    vendor = candidates[0] if candidates else next(one for one in VENDORS if one.tier is Tier.PRIVATE)
    base_url = f"http://127.0.0.1:{port}/v1"
    listed = await _get(transport, port, "/v1/models")
    if listed is not None and listed[0] == 200:
        models = _models(listed[1])
        if models is None:
            return None  # something answers there, and it is no model server
        named = vendor_named(_OWNERS.get(models[1] or "", ""))
        vendor = vendor if named is None else named
        # A hosted vendor's row would bring its key along, to a server that is not its own.
        assert vendor.tier is Tier.PRIVATE and vendor.key_variable is None
        return Found(vendor=vendor, base_url=base_url, models=models[0])
    silent = next((one for one in candidates if not one.lists_models), None)
    if listed is None or silent is None or listed[0] != 500:
        return None
    healthy = await _get(transport, port, "/health")
    return Found(vendor=silent, base_url=base_url, models=()) if healthy and healthy[0] == 200 else None


async def _get(transport: Transport, port: int, path: str) -> tuple[int, bytes] | None:
    origin = Origin(scheme="http", host="127.0.0.1", port=port)
    endpoint = Endpoint(label="a local server", origin=origin, path=path, method="GET")
    try:
        response = await transport.send(endpoint, b"", timing=Timing(monotonic() + PROBE_S))
        with closing(response):
            body = b""
            while (piece := await response.next_piece()) is not None and len(body) < _LIST_BYTES_MAX:
                body += piece
            return response.status, body
    except UpstreamError:
        return None


def _models(body: bytes) -> tuple[tuple[str, ...], str | None] | None:
    """Read an OpenAI list of models: their names, and who says to own them; None: it is no such list."""
    try:
        listed: Any = loads(body)
        data = listed["data"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(data, list):
        return None
    rows = [row for row in data if isinstance(row, dict) and isinstance(row.get("id"), str)]
    # A star would stand for every name, or for none.
    fit = [row["id"] for row in rows if _NAME.fullmatch(row["id"]) and "*" not in row["id"]]
    fit = list(dict.fromkeys(fit))
    owner = rows[0].get("owned_by") if rows else None
    return tuple(fit[:_MODELS_MAX]), owner if isinstance(owner, str) else None


def _names(found: Sequence[Found]) -> list[str]:
    """Give each its vendor's name, and a number where there are several."""
    names: list[str] = []
    for one in found:
        same = sum(name.rstrip("0123456789") == one.vendor.name for name in names)
        names.append(one.vendor.name if not same else f"{one.vendor.name}{same + 1}")
    return names


def _provider_lines(name: str, found: Found) -> list[str]:
    vendor = found.vendor
    lines = [f"  {name}:".ljust(32) + f"# {vendor.title}", f"    base_url: {found.base_url}"]
    if vendor.key_variable is not None:
        lines.append(f'    api_keys: ["${{{vendor.key_variable}}}"]')
    if vendor.tier is Tier.PRIVATE:
        lines.append("    tier: private               # a server of ours: text stays in the house")
        lines.append(f"    engine: {vendor.engine}")
    if vendor.reseller:
        lines.append("    reseller: true              # prompts pass a third party")
    return lines


def _quoted(text: str) -> str:
    return f'"{text.replace(chr(92), chr(92) * 2)}"'
