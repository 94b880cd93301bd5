"""Reads files and environment into one frozen, validated, secret-hiding settings object."""

from tiergate.config.addresses import Address, is_inside
from tiergate.config.generation import Snapshot, first_snapshot, next_snapshot, reload
from tiergate.config.loading import DEFAULT_FILE, Loaded, find_file, load, load_text, read_env
from tiergate.config.schema import hidden, json_schema, reference_markdown
from tiergate.config.secret import Secret
from tiergate.config.sections import Provider, Retention
from tiergate.config.settings import Settings

__all__ = [
    "DEFAULT_FILE",
    "Address",
    "Loaded",
    "Provider",
    "Retention",
    "Secret",
    "Settings",
    "Snapshot",
    "find_file",
    "first_snapshot",
    "hidden",
    "is_inside",
    "json_schema",
    "load",
    "load_text",
    "next_snapshot",
    "read_env",
    "reference_markdown",
    "reload",
]
