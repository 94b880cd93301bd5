"""Tiergate: one endpoint in front of hosted APIs, private inference servers and a cache."""

__version__ = "0.1.0"
