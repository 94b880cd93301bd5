"""Writes the catalog's `data/models.json`: what models can do and how long their texts may be.

    git clone https://github.com/anomalyco/models.dev && python scripts/make_models.py models.dev

Of the vendors of the catalog only, and only what a gateway asks for: context, longest answer, abilities. What
the data leaves out stays unknown. The commit stands in the file as its source.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from tiergate.catalog import VENDORS, Ability

TARGET: Final = Path(__file__).resolve().parents[1] / "src/tiergate/catalog/data/models.json"
THEIR_NAMES: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "groq": "groq",
    "together": "togetherai",
    "fireworks": "fireworks-ai",
    "mistral": "mistral",
    "xai": "xai",
    "azure": "azure",
}
SAID: Final = {
    "tool_call": Ability.TOOLS,
    "structured_output": Ability.JSON_SCHEMA,
    "reasoning": Ability.REASONING,
}
TAKEN: Final = {"image": Ability.IMAGES, "audio": Ability.AUDIO, "pdf": Ability.FILES}


def document(checkout: Path) -> dict[str, Any]:
    """Give the whole file."""
    commit, day = _git(checkout, "log", "-1", "--format=%H %cs").split()
    return {
        "source": f"models.dev {commit[:12]}",
        "checked": day,
        "vendors": {
            vendor.name: dict(sorted(_models(checkout, THEIR_NAMES[vendor.name])))
            for vendor in VENDORS
            if vendor.name in THEIR_NAMES
        },
    }


def written(whole: dict[str, Any]) -> str:
    """Give the text of the file: one line for each model, so that a change can be read."""
    vendors = whole.pop("vendors")
    lines = [json.dumps(whole)[:-1] + ', "vendors": {']
    for number, (name, models) in enumerate(vendors.items(), start=1):
        rows = [f"{json.dumps(model)}:{_compact(facts)}" for model, facts in models.items()]
        lines += [f"{json.dumps(name)}: {{", ",\n".join(rows), "}" + ("," if number < len(vendors) else "")]
    return "\n".join([*lines, "}}"]) + "\n"


def _models(checkout: Path, provider: str) -> list[tuple[str, dict[str, Any]]]:
    folder = checkout / "providers" / provider / "models"
    found = []
    for path in folder.rglob("*.toml"):
        name = path.relative_to(folder).as_posix().removesuffix(".toml")
        facts = _facts(_whole(checkout, tomllib.loads(path.read_text(encoding="utf-8"))))
        if facts:
            found.append((name.lower(), facts))
    return found


def _whole(checkout: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Add what a row inherits from its base model; its own fields win, tables field by field."""
    base = row.get("base_model")
    if base is None:
        return row
    whole = tomllib.loads((checkout / "models" / f"{base}.toml").read_text(encoding="utf-8"))
    for name, value in row.items():
        whole[name] = {**whole.get(name, {}), **value} if isinstance(value, dict) else value
    return whole


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    limit = row.get("limit", {})
    for ours, theirs in (("context", "context"), ("output", "output")):
        if limit.get(theirs):
            facts[ours] = limit[theirs]
    has, lacks = [], []
    for name, ability in SAID.items():
        if name in row:
            (has if row[name] else lacks).append(ability.value)
    taken = row.get("modalities", {}).get("input")
    for name, ability in TAKEN.items() if taken else ():
        (has if name in taken else lacks).append(ability.value)
    if has:
        facts["has"] = has
    if lacks:
        facts["lacks"] = lacks
    return facts


def _compact(facts: dict[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))


def _git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    TARGET.write_text(written(document(Path(sys.argv[1]))), encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size // 1024} KiB", file=sys.stderr)
