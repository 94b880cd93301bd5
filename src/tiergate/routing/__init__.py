"""Where could this go: call + catalog + health + load → ordered route with reasons."""

from tiergate.routing.route import Policy, Route, Step, route

__all__ = ["Policy", "Route", "Step", "route"]
