"""The lane of one model at a provider: what is in flight there, what it can do at one time and per minute."""

from typing import NamedTuple

from tiergate.core import Allowances
from tiergate.resilience.adaptive import Adaptive
from tiergate.resilience.learned import Entered, LearnedRates


class Hindrance(NamedTuple):
    """Why nobody gets in now: in words, until when if that is known, and whether it holds for all models.

    `at_most_s`: it may end at any time, and does after this.
    """

    why: str
    wait_s: float | None = None
    for_all: bool = True
    at_most_s: float | None = None


class Lane:
    """What is in flight at one model, and what it has shown and said that it can do."""

    __slots__ = ("_name", "_requests", "_tokens", "adaptive", "in_flight", "learned")

    def __init__(self, name: str) -> None:
        self._name = name
        """Of the target."""
        self.adaptive = Adaptive()
        self.learned: LearnedRates | None = None
        """None: its answers have said nothing of rates."""
        self.in_flight = 0
        self._requests = 0
        """That were let in, ever."""
        self._tokens = 0
        """That these might use, where tokens counted."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in flight, and there is nothing to remember."""
        return not self.in_flight and self.adaptive.limit is None and self.learned is None

    def hindrance(self, tokens: int, now: float) -> Hindrance | None:
        """Tell what of this model keeps an attempt out."""
        if not self.adaptive.has_room(self.in_flight, now):
            what = f"{self._name} has pushed back and is given {self.in_flight} at a time."
            return Hindrance(what, for_all=False, at_most_s=self.adaptive.forgotten_in_s(now))
        if self.learned is None:
            return None
        wait_s = self.learned.wait_s(tokens, now)
        if wait_s <= 0:
            return None
        what = f"{self._name} says that its rate is used up."
        return Hindrance(what, wait_s, for_all=False, at_most_s=wait_s)

    def enter(self, tokens: int, now: float) -> Entered:
        """Count an attempt."""
        self.in_flight += 1
        self._requests += 1
        self._tokens += tokens
        if self.learned is not None:
            self._forget(now)
        if self.learned is not None:
            self.learned.take(tokens, now)
        return now, self._requests, self._tokens

    def leave(self, *, took: int, used: int, output: int, sent: bool, is_good: bool) -> None:
        """Take out an attempt that has ended."""
        self.in_flight -= 1
        if self.learned is None:
            return
        if not sent:
            self.learned.give_back(took)
        elif is_good:
            self.learned.was_good(took=took, used=used, output=output)

    def hear(self, said: Allowances, since: Entered, now: float, *, refused: int | None) -> None:
        """Take what the answer to an attempt says of the model's rates.

        `refused`: how many tokens one that was refused might use; None: it was not.
        """
        if self.learned is None:
            self.learned = LearnedRates(now)
        self.learned.hear(said, since=since, requests=self._requests, tokens=self._tokens, now=now)
        if refused is not None:
            self.learned.was_refused(said, took=refused)

    def _forget(self, now: float) -> None:
        """Forget what nobody has said again for long."""
        if self.learned is not None and self.learned.is_forgotten(now):
            self.learned = None
