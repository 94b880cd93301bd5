"""Turns events into logs, metrics and traces; never decides anything."""
