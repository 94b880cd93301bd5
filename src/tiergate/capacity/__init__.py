"""What a private server can do: first token and token rate over load, and an engine that obeys them."""
