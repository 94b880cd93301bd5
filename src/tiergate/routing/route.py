"""Where a call could go: its targets in order, each with the reason for its place."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from tiergate.core import DataClass, Target, Tier


class Policy(StrEnum):
    """How targets are ordered."""

    IN_ORDER = "in-order"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A target and why it stands where it stands, or why it is left out."""

    target: Target
    reason: str
    used: bool = True


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The way of a call: every target that was considered, in order."""

    steps: tuple[Step, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that may be tried, in order."""
        return tuple(step.target for step in self.steps if step.used)

    @property
    def reasons(self) -> tuple[tuple[str, str], ...]:
        """(`provider/model`, reason) of every step."""
        return tuple((step.target.name, step.reason) for step in self.steps)


def route(targets: Sequence[Target], *, policy: Policy, data_class: DataClass) -> Route:
    """Order the targets of a model for one call.

    A private-only call has no hosted step that may be used, whatever the policy.
    """
    assert policy is Policy.IN_ORDER
    steps = []
    for place, target in enumerate(targets, start=1):
        if data_class is DataClass.PRIVATE_ONLY and target.tier is not Tier.PRIVATE:
            steps.append(Step(target=target, reason="left out: the call is private-only", used=False))
        else:
            steps.append(Step(target=target, reason=f"in order: listed as number {place}"))
    return Route(steps=tuple(steps))
