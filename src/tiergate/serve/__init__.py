"""Life of one call: the only place that knows the order of the rooms."""

from tiergate.serve.ports import Exchange, Question, Upstream

__all__ = ["Exchange", "Question", "Upstream"]
