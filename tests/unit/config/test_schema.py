"""The settings describe themselves: to editors, to readers, and in examples that load."""

import json
from pathlib import Path
from typing import Any

import pytest

from tiergate.config import hidden, json_schema, load, load_text, reference_markdown

ROOT = Path(__file__).parents[3]
ENVIRON = {
    name: f"{name.lower()}-0123456789abcdef"
    for name in ("DEEPSEEK_API_KEY", "HOLYSHEEP_API_KEY", "WEB_KEY", "BATCH_KEY")
}


def test_the_reference_is_the_code() -> None:
    """docs/reference/settings.md is what the code says; `tiergate schema --markdown` writes it anew."""
    written = (ROOT / "docs/reference/settings.md").read_text()
    assert written == reference_markdown(), "run `tiergate schema --markdown > docs/reference/settings.md`"


@pytest.mark.parametrize("name", ["tiergate.yaml", "hosted-only.yaml", "private-first.yaml"])
def test_examples_load_without_a_notice(name: str) -> None:
    """Every example loads, and this version honours all of it."""
    loaded = load(ROOT / "examples" / name, ENVIRON)
    assert loaded.notices == ()
    assert loaded.settings.models


def objects(schema: object) -> list[dict[str, Any]]:
    if isinstance(schema, dict):
        return [schema, *(one for value in schema.values() for one in objects(value))]
    return [one for value in schema for one in objects(value)] if isinstance(schema, list) else []


def test_every_setting_is_described() -> None:
    """Every property of the JSON Schema has a description, and no object takes unknown names."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    closed = [one for one in objects(schema) if "properties" in one and one.get("type") == "object"]
    assert len(closed) == 27
    for one in closed:
        assert one["additionalProperties"] is False
        for name, found in one["properties"].items():
            assert found.get("description") or "$ref" in found, name
    json.dumps(schema)


def test_schema_knows_names_and_choices() -> None:
    """Names of the user's choice follow a pattern, words are listed, secrets are write-only."""
    schema = json_schema()
    providers = schema["properties"]["providers"]
    assert providers["additionalProperties"] == {"$ref": "#/$defs/Provider"}
    assert providers["propertyNames"]["pattern"].startswith("^(?:[A-Za-z0-9]")
    assert schema["$defs"]["Model"]["properties"]["policy"]["enum"][0] == "in-order"
    assert schema["$defs"]["Provider"]["properties"]["api_keys"]["items"]["writeOnly"] is True
    assert schema["properties"]["listen"]["default"] == "127.0.0.1:4400"
    assert schema["required"] == ["providers"]


def test_hidden_is_json() -> None:
    """The view without secrets is plain JSON, with money and times as numbers."""
    shown = hidden(load(ROOT / "examples" / "tiergate.yaml", ENVIRON).settings)
    assert json.loads(json.dumps(shown)) == shown
    assert shown["prices"][0]["usd_per_1m"]["input"] == 0.14
    assert shown["prices"][0]["from"] == "2026-01-01"
    assert shown["data_dir"] == str(ROOT / "examples" / "tiergate-data")
    assert shown["providers"]["holysheep"]["api_keys"] == ["…cdef"]


def test_hidden_loads_again() -> None:
    """Without secrets the view is a settings file by itself."""
    loaded = load_text("providers: {a: {base_url: http://a}}\nmodels: {m: {targets: [a/x]}}", {})
    shown = hidden(loaded.settings)
    assert load_text(json.dumps(shown), {}).settings == loaded.settings
