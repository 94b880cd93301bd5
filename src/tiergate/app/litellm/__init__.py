"""`tiergate import litellm`: a LiteLLM proxy's `config.yaml`, written as settings of ours."""

from tiergate.app.litellm.command import import_litellm

__all__ = ["import_litellm"]
