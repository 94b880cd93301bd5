"""A continuous-batching engine in virtual time: who waits, who runs, and when each token leaves.

It is what vLLM, SGLang and their like do, reduced to what a caller can see. The engine works in steps. At
the start of a step, sequences enter from a first-come queue while a slot is free and their key-value cache
fits. In a step, prompts are read up to a bound (chunked prefill), and each sequence whose prompt is read
gives one token when the step ends. A step takes

    base_ms + per_sequence_ms * sequences that give a token + prompt tokens read / prefill rate

so throughput rises with concurrency, bends, and stays flat once the slots are full; from there on waiting
shows in the time to first token. Cache for prompt and output is set aside on entry, so no sequence is ever
pushed out again; prefixes are not shared.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModel:
    """What an engine can do. Fit these five figures to a real server and its curve follows.

    Raises:
        ValueError: a figure that no engine can have.
    """

    slots: int = 16
    """Sequences that run at once."""
    prefill_tokens_per_s: float = 10_000.0
    """Prompt tokens read in a second, when nothing else is done."""
    prefill_chunk_tokens: int = 2_048
    """Prompt tokens read in one step at most: a long prompt slows the others down, but does not stop them."""
    base_ms: float = 10.0
    """What a step costs however few sequences there are; the weights are read once for all of them."""
    per_sequence_ms: float = 0.2
    """What each sequence that gives a token adds to its step."""
    kv_capacity_tokens: int = 200_000
    """Tokens that the key-value cache holds, prompts and output together."""
    queue_limit: int = 1_000
    """Sequences that may wait while no slot is free; more are refused."""

    def __post_init__(self) -> None:
        for name in ("slots", "prefill_tokens_per_s", "prefill_chunk_tokens", "kv_capacity_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("base_ms", "per_sequence_ms", "queue_limit"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be below 0")
        if self.step_ms(1) <= 0:
            raise ValueError("base_ms and per_sequence_ms cannot both be 0: a step takes time")

    def step_ms(self, sequences: int, prompt_tokens: int = 0) -> float:
        """Give the time of a step in which `sequences` give a token and `prompt_tokens` are read."""
        reading_ms = prompt_tokens / self.prefill_tokens_per_s * 1_000
        return self.base_ms + self.per_sequence_ms * sequences + reading_ms

    def decode_tokens_per_s(self, concurrency: int) -> float:
        """Give the rate of all sequences together at a steady concurrency, prompts not counted."""
        running = min(concurrency, self.slots)
        return running / self.step_ms(running) * 1_000


class Arrival(NamedTuple):
    """A sequence that comes in at `at` (seconds); `output_tokens` is at least 1."""

    id: int
    at: float
    prompt_tokens: int
    output_tokens: int


class Token(NamedTuple):
    """Token `number` (from 1) of sequence `id` leaves at `at` (seconds)."""

    id: int
    number: int
    at: float
    last: bool


class Entrance(StrEnum):
    """What became of an arrival."""

    ACCEPTED = "accepted"
    QUEUE_FULL = "queue_full"
    TOO_LONG = "too_long"
    """Prompt and output would never fit into the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """What the engine holds now, and what it has done."""

    running: int
    waiting: int
    kv_tokens: int
    kv_share: float
    """Of the cache, 0 to 1."""
    prompt_tokens: int
    """Read since the start."""
    output_tokens: int
    """Given since the start."""


class Engine:
    """The engine at work. It knows no clock: whoever drives it says what time it is.

    Call `advance` whenever `next_step_at` has come, and before `submit`.
    """

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self._waiting: dict[int, _Sequence] = {}
        self._running: dict[int, _Sequence] = {}
        self._speaking: list[_Sequence] = []
        """Those that give a token at the end of the step that is going on."""
        self._step_ends: float | None = None
        self._kv_tokens = 0
        self._prompt_tokens = 0
        self._output_tokens = 0

    @property
    def next_step_at(self) -> float | None:
        """When the step that is going on ends, in seconds; None while there is nothing to do."""
        return self._step_ends

    def submit(self, arrival: Arrival) -> Entrance:
        """Let a sequence in.

        Raises:
            ValueError: no output wanted, an id that is still here, or a step that ended before was not taken.
        """
        if arrival.output_tokens < 1:
            raise ValueError("a sequence gives at least one token")
        if arrival.id in self._waiting or arrival.id in self._running:
            raise ValueError(f"sequence {arrival.id} is already here")
        if self._step_ends is not None and self._step_ends < arrival.at:
            raise ValueError(f"advance to {arrival.at} before submitting at that time")
        if arrival.prompt_tokens + arrival.output_tokens > self.model.kv_capacity_tokens:
            return Entrance.TOO_LONG
        free_slots = self.model.slots - len(self._running)
        if len(self._waiting) >= self.model.queue_limit + free_slots:
            return Entrance.QUEUE_FULL
        self._waiting[arrival.id] = _Sequence(arrival)
        if self._step_ends is None:
            self._begin_step(arrival.at)
        return Entrance.ACCEPTED

    def advance(self, now: float) -> list[Token]:
        """Do all steps that end until `now`, and give the tokens that left, in order of time."""
        tokens: list[Token] = []
        while self._step_ends is not None and self._step_ends <= now:
            ended = self._step_ends
            self._end_step(ended, tokens)
            self._begin_step(ended)
        return tokens

    def cancel(self, id: int) -> int:  # noqa: A002 - it is the id of an Arrival
        """Take a sequence out, and give the number of tokens that it has given. Unknown ids give 0.

        Its slot and its cache are free for the next step; the step that is going on takes as long as before.
        """
        sequence = self._waiting.pop(id, None)
        if sequence is None and (sequence := self._running.pop(id, None)) is not None:
            self._kv_tokens -= sequence.kv_tokens
        if sequence is None:
            return 0
        sequence.cancelled = True
        return sequence.given

    def statistics(self) -> EngineStatistics:
        """Count what is here."""
        return EngineStatistics(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_tokens=self._kv_tokens,
            kv_share=self._kv_tokens / self.model.kv_capacity_tokens,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
        )

    def _begin_step(self, at: float) -> None:
        self._let_in()
        if not self._running:
            self._step_ends = None
            return
        read = self._read_prompts()
        self._speaking = [sequence for sequence in self._running.values() if sequence.unread == 0]
        self._step_ends = at + self.model.step_ms(len(self._speaking), read) / 1_000

    def _let_in(self) -> None:
        while self._waiting and len(self._running) < self.model.slots:
            first = next(iter(self._waiting.values()))
            if self._kv_tokens + first.kv_tokens > self.model.kv_capacity_tokens:
                return
            del self._waiting[first.id]
            self._running[first.id] = first
            self._kv_tokens += first.kv_tokens

    def _read_prompts(self) -> int:
        left = self.model.prefill_chunk_tokens
        for sequence in self._running.values():
            if sequence.unread and left:
                part = min(sequence.unread, left)
                sequence.unread -= part
                left -= part
        read = self.model.prefill_chunk_tokens - left
        self._prompt_tokens += read
        return read

    def _end_step(self, at: float, tokens: list[Token]) -> None:
        for sequence in self._speaking:
            if sequence.cancelled:
                continue
            sequence.given += 1
            self._output_tokens += 1
            last = sequence.given == sequence.wanted
            tokens.append(Token(sequence.id, sequence.given, at, last))
            if last:
                del self._running[sequence.id]
                self._kv_tokens -= sequence.kv_tokens


class _Sequence:
    __slots__ = ("cancelled", "given", "id", "kv_tokens", "unread", "wanted")

    def __init__(self, arrival: Arrival) -> None:
        self.id = arrival.id
        self.unread = arrival.prompt_tokens
        self.wanted = arrival.output_tokens
        self.kv_tokens = arrival.prompt_tokens + arrival.output_tokens
        self.given = 0
        self.cancelled = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What an arrival was given: when each of its tokens left, in seconds; none if it was refused."""

    arrival: Arrival
    entrance: Entrance
    token_times: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """From its arrival to its first token."""
        return self.token_times[0] - self.arrival.at

    @property
    def total_s(self) -> float:
        """From its arrival to its last token."""
        return self.token_times[-1] - self.arrival.at


def simulate(model: EngineModel, arrivals: Iterable[Arrival]) -> list[Served]:
    """Serve arrivals to their end. They come in order of time, each with its own id; so does the answer."""
    engine = Engine(model)
    entrances: list[tuple[Arrival, Entrance]] = []
    times: dict[int, list[float]] = {}
    for arrival in arrivals:
        if arrival.id in times:
            raise ValueError(f"two arrivals have the id {arrival.id}")
        _note(engine.advance(arrival.at), times)
        entrances.append((arrival, engine.submit(arrival)))
        times[arrival.id] = []
    while engine.next_step_at is not None:
        _note(engine.advance(engine.next_step_at), times)
    return [
        Served(arrival=arrival, entrance=entrance, token_times=tuple(times[arrival.id]))
        for arrival, entrance in entrances
    ]


def _note(tokens: list[Token], times: dict[int, list[float]]) -> None:
    for token in tokens:
        times[token.id].append(token.at)
