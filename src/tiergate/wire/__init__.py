"""The public formats in bytes and back: OpenAI, server-sent events, errors; no network."""
