"""Where a call could go: its targets in order, each with the reason for its place."""

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from tiergate.core import DataClass, Target, Tier


def _nothing_against(target: Target) -> str | None:
    return None


class Policy(StrEnum):
    """How targets are ordered."""

    IN_ORDER = "in-order"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A target and why it stands where it stands, or why it is left out."""

    target: Target
    reason: str
    used: bool = True
    rests: bool = False
    """It is left alone at this moment."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The way of a call: every target that was considered, in order."""

    steps: tuple[Step, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that may be tried, in order."""
        return tuple(step.target for step in self.steps if step.used)

    @property
    def last(self) -> Target:
        """The last target that is not left alone; where all are, the last."""
        return next(
            (step.target for step in reversed(self.steps) if step.used and not step.rests), self.targets[-1]
        )

    @property
    def reasons(self) -> tuple[tuple[str, str], ...]:
        """(`provider/model`, reason) of every step."""
        return tuple((step.target.name, step.reason) for step in self.steps)


def route(
    targets: Sequence[Target],
    *,
    policy: Policy,
    data_class: DataClass,
    why_not: Callable[[Target], str | None] = _nothing_against,
) -> Route:
    """Order the targets of a model for one call.

    A private-only call has no hosted step that may be used, whatever the policy. `why_not` says why a target
    is left alone at this moment; it keeps its place, since it may come back before its turn.
    """
    assert policy is Policy.IN_ORDER
    steps = []
    for place, target in enumerate(targets, start=1):
        if data_class is DataClass.PRIVATE_ONLY and target.tier is not Tier.PRIVATE:
            steps.append(Step(target=target, reason="left out: the call is private-only", used=False))
        else:
            against = why_not(target)
            reason = f"in order: listed as number {place}"
            steps.append(
                Step(target=target, reason=reason)
                if against is None
                else Step(target=target, reason=f"{reason}; {against}", rests=True)
            )
    return Route(steps=tuple(steps))
