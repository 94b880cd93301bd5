"""Answers questions about the past: spend, savings, service level, by key, model, tier and day."""
