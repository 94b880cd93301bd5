"""The section `resilience`: how long to wait, how often to try, and when to leave alone what fails."""

from typing import Annotated

from pydantic import Field

from tiergate.config.sections import OPTIONAL, Section
from tiergate.config.values import Duration, Truth, number, whole


class Breakers(Section):
    """When what fails is left alone: a provider's servers, its key, and each model, each for itself."""

    enabled: Truth = Field(
        default=True,
        description="False: whatever fails is asked again with every call, also a key that was refused.",
    )
    window_s: Annotated[float, number("0", "600")] = Field(
        default=30.0, description="How far back failures count, in seconds."
    )
    calls: Annotated[int, whole(1, 100_000)] = Field(
        default=20, description="Fewer calls than this within the window say nothing."
    )
    failed_share: Annotated[float, number("0", "1")] = Field(
        default=0.5, description="The share of them that must fail."
    )
    in_a_row: Annotated[int, whole(1, 100_000)] = Field(
        default=5, description="Calls in a row without a sign of life that are enough, however few came."
    )
    open_s: Annotated[float, number("0", "3600")] = Field(
        default=30.0,
        description="For how long it is left alone, in seconds; as much longer after each trial that fails.",
    )
    open_max_s: Annotated[float, number("0", "86400")] = Field(
        default=300.0, description="The longest that it is left alone, in seconds."
    )


class Resilience(Section):
    """How long to wait and how often to try."""

    attempts: Annotated[int, whole(1, 5)] = Field(
        default=3, description="Most attempts per call, over all targets."
    )
    backoff_s: Annotated[float, number("0", "60")] = Field(
        default=0.05,
        description="The most that a call waits before a target that failed is tried again, in seconds; "
        "doubles with each failure. The wait is drawn at random up to it.",
    )
    backoff_max_s: Annotated[float, number("0", "600")] = Field(
        default=8.0,
        description="The longest such wait of an interactive call, also where a provider asks for one: who "
        "asks for more is not asked again.",
    )
    adaptive_concurrency: Truth = Field(
        default=True,
        description="Whether a target that pushes back (429, 503, no sign of life) is given less at one "
        "time, and slowly more again, and one whose answers tell its limits is asked no faster than that.",
    )
    breaker: Breakers = Field(default_factory=Breakers, description="When what fails is left alone.")
    first_event_s: Duration = Field(default=60.0, description="Longest wait for an upstream's first event.")
    idle_s: Duration = Field(default=60.0, description="Longest silence between two events.")
    reasoning_s: Duration = Field(
        default=300.0,
        description="At least this for both of them where a model is known to think before it answers.",
    )
    total_s: Duration = Field(default=600.0, description="Longest time of a call that is not streamed.")
    stream_total_s: Duration = Field(default=3600.0, description="Longest time of a streamed call.")
    heartbeat_s: Annotated[Duration | None, OPTIONAL] = Field(
        default=15.0,
        description="Silence in a stream after which its client is sent a comment, so that nobody on the way "
        "takes it for dead; the answer's headers leave with the first one. None: none is.",
    )
