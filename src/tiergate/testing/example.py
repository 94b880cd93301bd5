"""An example for a JSON schema: something that fits it, for tools and structured answers."""

from collections.abc import Mapping
from typing import Any, Final

_DEPTH_MAX: Final = 16


def example(schema: Mapping[str, Any], text: str, *, depth: int = 0) -> Any:
    """Give a value that fits the schema; strings are `text`. References and patterns are not followed."""
    if "const" in schema:
        return schema["const"]
    if options := schema.get("enum"):
        return options[0]
    for either in ("anyOf", "oneOf"):
        if alternatives := schema.get(either):
            return example(alternatives[0], text, depth=depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties = schema.get("properties", {}) if depth < _DEPTH_MAX else {}
            return {name: example(inner, text, depth=depth + 1) for name, inner in properties.items()}
        case "array":
            items = schema.get("items") if depth < _DEPTH_MAX else None
            return [example(items, text, depth=depth + 1)] if isinstance(items, dict) else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return text
