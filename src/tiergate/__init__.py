"""Tiergate: one endpoint in front of hosted APIs, private inference servers and a cache."""

from typing import TYPE_CHECKING, Any

from tiergate.core.version import VERSION

if TYPE_CHECKING:
    from tiergate.app.gateway import Gateway

__all__ = ["Gateway", "__version__"]

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Bring the Python door in when it is first asked for: it needs the whole house, the version does not."""
    if name == "Gateway":
        from tiergate.app.gateway import Gateway

        return Gateway
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
