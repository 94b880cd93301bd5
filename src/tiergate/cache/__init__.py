"""Have we answered this before: key, freshness, exact and similar tiers, one flight per question."""
