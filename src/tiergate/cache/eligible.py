"""Whether an answer to a question may be kept, and given again to whoever asks the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tiergate.cache.control import Control


class When(StrEnum):
    """Which questions of a model are answered from the cache."""

    TEMPERATURE_ZERO = "temperature-zero"
    """Those that ask for the same answer each time: an explicit temperature of 0."""
    ALWAYS = "always"
    NEVER = "never"


class Bypass(StrEnum):
    """Why the cache has nothing to do with a call."""

    OFF = "off"
    """The settings say so."""
    NO_STORE = "no-store"
    """The caller says so."""
    TEMPERATURE = "temperature"
    """The answer may be another one each time. Without a temperature it is the provider's, which is not 0."""
    STATEFUL = "stateful"
    """It goes on with what a provider has kept of another call."""
    SERVER_TOOLS = "server-tools"
    """The provider looks something up, or does something, for the answer."""
    REMOTE = "remote-image"
    """It points to something that may be another one tomorrow."""
    NEW_TENANT = "new-tenant"
    """Its first call: what its keys are made with is on its way to the ledger."""
    AUDIO = "audio"
    """Spoken answers are referred to by a name that expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """What is kept of a model's answers, and for how long; `keep_tool_calls`: also those that call tools.

    `stale_if_error_s`: for how long after its time an answer is given where every target fails.
    """

    when: When = When.TEMPERATURE_ZERO
    ttl_s: float = 3_600.0
    stale_if_error_s: float = 3_600.0
    keep_tool_calls: bool = False


DEFAULT_POLICY: Final = CachePolicy()

_STATEFUL: Final = frozenset({"previous_response_id", "conversation", "thread", "session_id"})
_SERVER_TOOLS: Final = frozenset(
    {"web_search_options", "search_parameters", "plugins", "mcp_servers", "container"}
)
_PLAIN: Final = frozenset({"role", "content", "name", "tool_call_id", "tool_calls"})
"""Fields of a message that hold text and nothing else."""
_TOOLS_OF_CALLERS: Final = ("function", "custom")


def bypass(body: Mapping[str, Any], policy: CachePolicy, control: Control) -> Bypass | None:
    """Tell why a question is asked past the cache; None: it may be answered from it, and be kept.

    Args:
        body: of the request, as it was read.
        policy: of its model.
        control: what the caller says.
    """
    if policy.when is When.NEVER:
        return Bypass.OFF
    if control.no_store:
        return Bypass.NO_STORE
    if policy.when is When.TEMPERATURE_ZERO and not _is_zero(body.get("temperature")):
        return Bypass.TEMPERATURE
    if not _STATEFUL.isdisjoint(body) and _has_one(body, _STATEFUL):
        return Bypass.STATEFUL
    if not _SERVER_TOOLS.isdisjoint(body) and _has_one(body, _SERVER_TOOLS):
        return Bypass.SERVER_TOOLS
    if _has_server_tool(body.get("tools")):
        return Bypass.SERVER_TOOLS
    modalities = body.get("modalities")
    is_text = modalities is None or (isinstance(modalities, list) and "audio" not in modalities)
    if not is_text or body.get("audio") is not None:
        return Bypass.AUDIO
    return _of_parts(body.get("messages"))


def _has_one(body: Mapping[str, Any], names: frozenset[str]) -> bool:
    return any(body.get(name) is not None for name in names)


def _is_zero(temperature: object) -> bool:
    return type(temperature) in (int, float) and temperature == 0


def _has_server_tool(tools: object) -> bool:
    """Tell whether a tool is not the caller's own; one that cannot be read may be anything."""
    if tools is None:
        return False
    if not isinstance(tools, list):
        return True
    return any(not isinstance(tool, dict) or tool.get("type") not in _TOOLS_OF_CALLERS for tool in tools)


def _of_parts(messages: object) -> Bypass | None:
    """Look at what messages hold beside text."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if message.keys() <= _PLAIN and not isinstance(content, list):
            continue
        for part in (message, *(content if isinstance(content, list) else ())):
            why = _of_part(part)
            if why is not None:
                return why
    return None


def _of_part(part: object) -> Bypass | None:
    match part:
        case {"audio": {"id": _}}:
            return Bypass.AUDIO
        case {"file_id": str()} | {"file": {"file_id": str()}}:
            return Bypass.STATEFUL
        case {"image_url": {"url": str(url)}} | {"image_url": str(url)} if not _is_here(url):
            return Bypass.REMOTE
        case {"video_url": {"url": str(url)}} | {"audio_url": {"url": str(url)}} if not _is_here(url):
            return Bypass.REMOTE
        case {"file_url": str(url)} | {"file": {"file_url": str(url)}} if not _is_here(url):
            return Bypass.REMOTE
    return None


def _is_here(url: str) -> bool:
    """Tell whether all of it stands in the address itself."""
    return url[:5].lower() == "data:"
