"""`tiergate demo`: the whole product on one machine, without a key."""

from tiergate.app.demo.play import demo

__all__ = ["demo"]
