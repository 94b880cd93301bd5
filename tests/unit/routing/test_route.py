"""The route: targets in order with reasons, and none that the call's data may not reach."""

from itertools import permutations

from tiergate.core import DataClass, Target, Tier
from tiergate.routing import Policy, Route, Step, route

RACK = Target(provider="rack", model="m", tier=Tier.PRIVATE)
DESK = Target(provider="desk", model="m", tier=Tier.PRIVATE)
API = Target(provider="api", model="m", tier=Tier.HOSTED)


def test_in_order_means_the_order_of_the_settings() -> None:
    """Each with the reason for its place."""
    found = route((API, RACK), policy=Policy.IN_ORDER, data_class=DataClass.ANY)
    assert found.targets == (API, RACK)
    assert found.reasons == (
        ("api/m", "in order: listed as number 1"),
        ("rack/m", "in order: listed as number 2"),
    )


def test_a_private_only_call_has_no_hosted_step_that_may_be_used() -> None:
    """In every order of the targets; what is left out is said."""
    for targets in permutations((RACK, API, DESK)):
        found = route(targets, policy=Policy.IN_ORDER, data_class=DataClass.PRIVATE_ONLY)
        assert found.targets == tuple(target for target in targets if target.tier is Tier.PRIVATE)
        assert dict(found.reasons)["api/m"] == "left out: the call is private-only"
        assert [step.target for step in found.steps] == list(targets)


def test_a_route_may_be_empty() -> None:
    """Then its reasons are all there is to say."""
    found = route((API,), policy=Policy.IN_ORDER, data_class=DataClass.PRIVATE_ONLY)
    assert found == Route(steps=(Step(target=API, reason="left out: the call is private-only", used=False),))
    assert found.targets == ()
