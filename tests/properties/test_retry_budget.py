"""The budget of retries, over any order of calls and retries, any time, and clocks that stand still."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tiergate.core import Target, Tier
from tiergate.resilience import RetryBudget

A, A2, B = (
    Target(provider=provider, model=model, tier=Tier.HOSTED)
    for provider, model in (("a", "m"), ("a", "other"), ("b", "m"))
)
TARGETS = st.sampled_from([A, A2, B])
_ROUNDING = 1e-9


class Spending(RuleBasedStateMachine):
    """A budget beside lists of everything that ever happened."""

    def __init__(self) -> None:
        super().__init__()
        self.budget, self.now = RetryBudget(), 0.0
        self.calls: dict[str, list[float]] = {"a": [], "b": []}
        self.retries: dict[str, list[float]] = {"a": [], "b": []}

    @rule(seconds=st.floats(0, 15) | st.floats(0, 1e6))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=TARGETS, count=st.integers(1, 30))
    def calls_come(self, which: Target, count: int) -> None:
        for _ in range(count):
            self.budget.came(which, self.now)
            self.calls[which.provider].append(self.now)

    @rule(which=TARGETS, count=st.integers(1, 10))
    def retries_are_wanted(self, which: Target, count: int) -> None:
        retries = self.retries[which.provider]
        for _ in range(count):
            if self.budget.allows(which, self.now):
                self.budget.took(which, self.now)
                retries.append(self.now)
                spared = self._within(self.calls[which.provider], 11) * 0.2 + 3
                assert self._within(retries, 10) <= spared + _ROUNDING
            else:
                # Counted is what is 10 s old, and by whole seconds perhaps what is 11 s old.
                calls = self._within(self.calls[which.provider], 10)
                assert self._within(retries, 11) + 1 > calls * 0.2 + 3 - _ROUNDING, "refused too early"

    @invariant()
    def what_it_tells_is_what_it_counts(self) -> None:
        for provider, (calls, retries) in self.budget.statistics(self.now).items():
            for told, happened in ((calls, self.calls[provider]), (retries, self.retries[provider])):
                assert self._within(happened, 10) <= told <= self._within(happened, 11)

    def _within(self, times: list[float], seconds: float) -> int:
        return sum(at > self.now - seconds for at in times)


TestSpending = Spending.TestCase
