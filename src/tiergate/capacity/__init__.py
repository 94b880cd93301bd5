"""What a private server can do: first token and token rate over load, and an engine that obeys them."""

from tiergate.capacity.engine import (
    Arrival,
    Engine,
    EngineModel,
    EngineStatistics,
    Entrance,
    Served,
    Token,
    simulate,
)

__all__ = [
    "Arrival",
    "Engine",
    "EngineModel",
    "EngineStatistics",
    "Entrance",
    "Served",
    "Token",
    "simulate",
]
