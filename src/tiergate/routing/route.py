"""Where a call could go: its targets in order, each with the reason for its place."""

from collections.abc import Callable
from enum import StrEnum
from functools import cached_property, lru_cache

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


class Route(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The way of a call: every target that was considered, in order."""

    steps: tuple[Step, ...]

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The targets that may be tried, in order."""
        return tuple(step.target for step in self.steps if step.used)

    @cached_property
    def last(self) -> Target:
        """The last target that is not left alone; where all are, the last."""
        return next(
            (step.target for step in reversed(self.steps) if step.used and not step.rests), self.targets[-1]
        )

    @cached_property
    def reasons(self) -> tuple[tuple[str, str], ...]:
        """(`provider/model`, reason) of every step."""
        return tuple((step.target.name, step.reason) for step in self.steps)


def route(
    targets: tuple[Target, ...],
    *,
    policy: Policy,
    data_class: DataClass,
    why_not: Callable[[Target], str | None] = _nothing_against,
) -> Route:
    """Order the targets of a model for one call.

    A private-only call has no hosted step that may be used, whatever the policy. `why_not` says why a target
    is left alone at this moment; it keeps its place, since it may come back before its turn.
    """
    against = tuple([why_not(target) for target in targets])
    return _route(targets, against, policy, data_class)


# Nearly every call finds nothing against any target, and so the same way as the last one.
@lru_cache(maxsize=1024)
def _route(
    targets: tuple[Target, ...], against: tuple[str | None, ...], policy: Policy, data_class: DataClass
) -> Route:
    assert policy is Policy.IN_ORDER
    steps = []
    for place, (target, why_not) in enumerate(zip(targets, against, strict=True), start=1):
        reason = f"in order: listed as number {place}"
        if data_class is DataClass.PRIVATE_ONLY and target.tier is not Tier.PRIVATE:
            steps.append(Step(target=target, reason="left out: the call is private-only", used=False))
        elif why_not is None:
            steps.append(Step(target=target, reason=reason))
        else:
            steps.append(Step(target=target, reason=f"{reason}; {why_not}", rests=True))
    return Route(steps=tuple(steps))
