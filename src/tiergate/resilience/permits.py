"""Permits: a place at a provider for one attempt, and a short, bounded wait for it."""

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from tiergate.core import Allowances, CallClass, Clock, Target, UpstreamThrottled
from tiergate.rates import SharedLimit, Sharing
from tiergate.resilience.gate import (
    NO_LIMITS,
    Gate,
    PermitStatistics,
    ProviderLimits,
)
from tiergate.resilience.learned import Entered


class Permit:
    """A place at a provider; a context that gives it back and hears how the attempt ended."""

    __slots__ = (
        "_call_class",
        "_entered",
        "_gate",
        "_model",
        "_output",
        "_sent",
        "_took",
        "_used",
        "in_flight",
    )

    def __init__(self, gate: "Gate", model: str, took: int, entered: Entered, call_class: CallClass) -> None:
        self._call_class = call_class
        self._gate: Gate | None = gate
        self._model = model
        self._took = took
        self._entered = entered
        self._used = 0
        self._output = 0
        self._sent = False
        self.in_flight = gate.in_flight
        """Attempts in flight when it was given, itself included."""

    def count(self, tokens: int, *, output: int = 0) -> None:
        """Tell that the request was sent, and how many tokens count for the provider's rate.

        `output`: how many of them came out.
        """
        self._sent, self._used, self._output = True, tokens, output

    def learn(self, said: Allowances | None) -> None:
        """Take what the provider's answer says of its own limits; a refusal's comes by itself."""
        if said is not None and self._gate is not None:
            self._gate.learn(self._model, said, self._entered)

    def __enter__(self) -> "Permit":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        gate, self._gate = self._gate, None
        if gate is None:
            return
        if isinstance(error, UpstreamThrottled) and error.allowances is not None:
            gate.learn(
                self._model, error.allowances, self._entered, refused=None if error.quota else self._took
            )
        gate.leave(
            self._model,
            error,
            took=self._took,
            used=self._used,
            output=self._output,
            sent=self._sent,
            call_class=self._call_class,
        )


class Permits:
    """The gates of all providers. Counters survive a change of limits.

    Args:
        limits: by provider; one that is not named has none.
        clock: monotonic seconds.
        is_adaptive: whether less goes to a target that pushes back, or says that its rate is used up.
        sharing: who is asked where limits are shared with other processes; None: they are of this one alone.
    """

    def __init__(
        self,
        limits: Mapping[str, ProviderLimits],
        *,
        clock: Clock,
        is_adaptive: bool = True,
        sharing: Sharing | None = None,
    ) -> None:
        self._clock = clock
        self._sharing = sharing
        self._gates: dict[str, Gate] = {}
        self.use(limits, is_adaptive=is_adaptive)

    def use(self, limits: Mapping[str, ProviderLimits], *, is_adaptive: bool = True) -> None:
        """Take new limits; whoever waits and now has room goes in."""
        self._limits = dict(limits)
        self._is_adaptive = is_adaptive
        for provider, gate in self._gates.items():
            gate.change(self._limits.get(provider, NO_LIMITS), is_adaptive=is_adaptive)

    async def take(
        self,
        target: Target,
        *,
        wait_s: float,
        tokens: Callable[[], int] = int,
        call_class: CallClass = CallClass.INTERACTIVE,
    ) -> Permit:
        """Take a place, waiting at most `wait_s`.

        `tokens` gives how many the attempt may use; asked only where that counts.

        Raises:
            TargetFull: there was none in time, or too many wait already.
        """
        gate = self._gates.get(target.provider)
        if gate is None:
            limits = self._limits.get(target.provider, NO_LIMITS)
            gate = Gate(
                target.provider,
                limits,
                clock=self._clock,
                is_adaptive=self._is_adaptive,
                sharing=self._sharing,
            )
            self._gates[target.provider] = gate
        amount = tokens() if gate.counts_tokens else 0
        entered = None
        if not gate.line.stands_before(call_class):
            entered = gate.try_enter(target.model, amount, call_class)
        if entered is None:
            entered = await gate.wait(target, amount, call_class, wait_s)
        return Permit(gate, target.model, amount, entered, call_class)

    def shared(self, *, urgent: bool) -> Iterator[SharedLimit]:
        """Give the limits that are shared with other processes, of providers that were used.

        `urgent`: only of those that somebody waits for.
        """
        for gate in self._gates.values():
            if gate.line or not urgent:
                yield from gate.shared()

    def look_again(self) -> None:
        """Let in who waits and has room now."""
        for gate in self._gates.values():
            gate.admit()

    def statistics(self) -> Mapping[str, PermitStatistics]:
        """The state of every gate that was used, by provider."""
        return {provider: gate.statistics() for provider, gate in self._gates.items()}
