"""Reads files and environment into one frozen, validated, secret-hiding settings object."""

from tiergate.config.addresses import Address
from tiergate.config.generation import Snapshot, first_snapshot, next_snapshot, reload
from tiergate.config.loading import Loaded, load, load_text
from tiergate.config.schema import hidden, json_schema, reference_markdown
from tiergate.config.secret import Secret
from tiergate.config.sections import Provider
from tiergate.config.settings import Settings

__all__ = [
    "Address",
    "Loaded",
    "Provider",
    "Secret",
    "Settings",
    "Snapshot",
    "first_snapshot",
    "hidden",
    "json_schema",
    "load",
    "load_text",
    "next_snapshot",
    "reference_markdown",
    "reload",
]
