"""Loads any OpenAI-compatible URL on a schedule; reports latency, throughput, goodput, cost and capacity."""
