"""What is found on a machine without a settings file, by real sockets; and where no key goes."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from contract.raw_server import Peer, RawServer, Script, answers, refused_port, reply, silent
from tiergate.app.discovery import Found, discover, settings_text
from tiergate.catalog import VENDORS
from tiergate.config import load_text
from tiergate.core import CannotStart, Tier

JSON = "Content-Type: application/json"
KEYS = {vendor.key_variable: f"sk-{vendor.name}-0123456789" for vendor in VENDORS if vendor.key_variable}


def lists(*models: str, owner: str = "") -> Script:
    rows = [{"id": model, "object": "model", "owned_by": owner} for model in models]
    return answers(reply(json.dumps({"object": "list", "data": rows}).encode(), JSON))


def found_at(*ports: int, environ: dict[str, str] | None = None) -> list[Found]:
    return asyncio.run(discover(environ or {}, ports=ports))


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_a_key_goes_where_its_owner_sends_it(variable: str) -> None:
    """The variables of the official clients: a key for a proxy is nothing that OpenAI should see."""
    environ = {"OPENAI_API_KEY": "sk-for-my-proxy-0123", variable: "https://llm.internal.example/v1/"}
    (found,) = found_at(environ=environ)
    assert found.base_url == "https://llm.internal.example/v1" and not found.models
    assert load_text(settings_text([found]), environ).settings.models == {}
    (usual,) = found_at(environ={**environ, variable: "https://api.openai.com/v1"})
    assert usual.base_url == "https://api.openai.com/v1" and usual.models


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OPENAI_API_KEY": "sk-0123 "}, "OPENAI_API_KEY holds a space"),
        ({"OPENAI_API_KEY": "sk-0123\n"}, "OPENAI_API_KEY holds a space"),
        ({"OPENAI_API_KEY": "sk-0123", "OPENAI_BASE_URL": "ftp://x"}, "OPENAI_BASE_URL is no address"),
        (
            {"AZURE_OPENAI_API_KEY": "0123", "AZURE_OPENAI_ENDPOINT": "https://x/?api-version=1"},
            "AZURE_OPENAI_ENDPOINT is no address",
        ),
        (
            {"AZURE_OPENAI_API_KEY": "0123", "AZURE_OPENAI_ENDPOINT": "https://x\nlisten: 0.0.0.0:1"},
            "AZURE_OPENAI_ENDPOINT is no address",
        ),
    ],
)
def test_an_odd_variable_is_named(environ: dict[str, str], said: str) -> None:
    """Rather than a line of a file that nobody wrote."""
    with pytest.raises(CannotStart, match=said):
        found_at(environ=environ)


def test_a_blank_key_is_none() -> None:
    """As empty variables of containers are."""
    assert found_at(environ={"OPENAI_API_KEY": "  "}) == []


@pytest.mark.parametrize(
    ("script", "vendor", "models"),
    [
        (lambda: lists("Qwen/Qwen3-8B", owner="vllm"), "vllm", ("Qwen/Qwen3-8B",)),
        (lambda: lists("a", "b", owner="sglang"), "sglang", ("a", "b")),
        (lambda: lists("m.gguf", owner="llamacpp"), "llamacpp", ("m.gguf",)),
        (lambda: lists("llama3.2:latest", owner="library"), "ollama", ("llama3.2:latest",)),
        (lambda: lists(), "vllm", ()),
        (
            lambda: lists("own", "own", "*", "a/*", "with space", "tab\t", "${HOME}", owner="somebody"),
            "vllm",
            ("own",),
        ),
    ],
    ids=["vllm", "sglang", "llamacpp", "ollama", "empty", "odd names"],
)
def test_a_server_is_recognised_by_its_list_of_models(
    script: Callable[[], Script], vendor: str, models: tuple[str, ...]
) -> None:
    """By whom it says to own them; else by the port. Names that no settings file can hold are left out."""
    with RawServer(script()) as server:
        (found,) = found_at(server.port)
    assert (found.vendor.name, found.models) == (vendor, models)
    assert found.base_url == f"http://127.0.0.1:{server.port}/v1"


@pytest.mark.parametrize(
    "script",
    [
        answers(reply(b"<html>", "Content-Type: text/html")),
        answers(reply(b'{"data": "none"}', JSON)),
        answers(reply(b"[]", JSON)),
        answers(reply(b"{}", JSON, status="404 Not Found")),
        answers(reply(b"{}", JSON, status="500 Internal Server Error")),
        answers(reply(b"", "Location: http://127.0.0.1:1/", status="302 Found")),
        silent,
        lambda peer: peer.reset(),
    ],
    ids=["a page", "no list", "an array", "404", "500", "a redirect", "silence", "a reset"],
)
def test_what_is_no_model_server_is_not_taken_for_one(script: Script) -> None:
    """Other programs like port 8000 and 8080, too."""
    with RawServer(script) as server:
        assert found_at(server.port) == []
    assert found_at(refused_port()) == []


def test_no_key_goes_to_a_server_of_this_machine() -> None:
    """With every vendor's key set; in the settings each key stands beside its own vendor's address only."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(RawServer(lists("m", owner=owner))) for owner in ("", "vllm", "openai", "x")
        ]
        found = found_at(*[server.port for server in servers], environ=KEYS)
        requests = [request for server in servers for request in server.requests]
    assert len(requests) == len(servers)
    for request in requests:
        assert request.line == "GET /v1/models HTTP/1.1"
        assert not {"authorization", "x-api-key", "cookie"} & {name for name, _ in request.headers}
    settings = load_text(settings_text(found), KEYS).settings
    local = [provider for provider in settings.providers.values() if "127.0.0.1" in provider.urls[0]]
    assert len(local) == len(servers)
    assert all(provider.tier == "private" and not provider.api_keys for provider in local)
    for name, provider in settings.providers.items():
        if provider.tier == "hosted":
            (key,) = provider.api_keys
            assert key.reveal() == f"sk-{name}-0123456789"


def test_a_key_is_enough_and_names_its_vendor() -> None:
    """Every vendor whose variable is set, and no other; Azure needs to know where it is."""
    without_azure = {vendor.name for vendor in VENDORS if vendor.tier is Tier.HOSTED} - {"azure"}
    assert {found.vendor.name for found in found_at(environ=KEYS)} == without_azure
    azure = {**KEYS, "AZURE_OPENAI_ENDPOINT": "https://ours.openai.azure.com/"}
    (found,) = [one for one in found_at(environ=azure) if one.vendor.name == "azure"]
    assert found.base_url == "https://ours.openai.azure.com/openai/v1"
    assert found_at(environ={"OPENAI_API_KEY": ""}) == []


def test_models_of_the_same_name_become_one_with_all_their_servers() -> None:
    """So the second answers when the first fails."""
    with RawServer(lists("m", owner="vllm")) as one, RawServer(lists("m", owner="vllm")) as other:
        found = found_at(one.port, other.port)
    settings = load_text(settings_text(found), {}).settings
    assert settings.models["m"].targets == ("vllm/m", "vllm2/m")


def test_the_servers_are_asked_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four silent ports cost one wait."""

    def slow(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    with ExitStack() as stack:
        ports = [stack.enter_context(RawServer(slow)).port for _ in range(4)]

        async def look() -> float:
            began = asyncio.get_running_loop().time()
            assert await discover({}, ports=ports) == []
            return asyncio.get_running_loop().time() - began

        assert asyncio.run(look()) < 1.5
