"""The sections of the settings, one frozen model each, with the sentence that documents every field."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapSerializer

from tiergate.admission import (
    CHOICES_MAX,
    CONCURRENCY_MAX,
    IMAGES_MAX,
    OUTPUT_TOKENS_MAX,
    RPM_MAX,
    TPM_MAX,
)
from tiergate.config.addresses import Address
from tiergate.config.values import (
    Api,
    BaseUrl,
    CacheWhen,
    CallerName,
    Credential,
    CurrencyName,
    Day,
    DayTime,
    Duration,
    DurationOrZero,
    Effort,
    Engine,
    FilePath,
    FreeText,
    HintName,
    Listen,
    ModelName,
    Policy,
    Scope,
    TargetName,
    Tier,
    TierName,
    TimeZone,
    Truth,
    Usd,
    UsdAboveZero,
    WebUrl,
    WeekDays,
    number,
    whole,
)

Key = TypeVar("Key")
Item = TypeVar("Item")


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _thaw(value: Mapping[Any, Any], serialize: Callable[[Any], Any]) -> Any:
    return serialize(dict(value))


OPTIONAL: Final = BeforeValidator(_empty_is_none)
"""An empty text means that the setting is not given, so that `${NAME:-}` switches it off."""

Table = Annotated[Mapping[Key, Item], AfterValidator(MappingProxyType), WrapSerializer(_thaw)]
"""A mapping with names of the user's choice, read-only once it is read."""


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, no values in error texts."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        serialize_by_alias=True,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=False,
    )


class Admin(Section):
    """The admin plane: dashboard, metrics and API on a listener of its own."""

    listen: Listen = Field(
        default=Address("127.0.0.1:4401"),
        description="Address of the admin plane. Outside loopback it needs a token.",
    )
    token: Annotated[Credential | None, OPTIONAL] = Field(
        default=None,
        description="Bearer token of the admin plane. None: one is made, kept in data_dir (0600) and its URL "
        "printed once.",
    )


class Retention(Section):
    """How long records are kept."""

    calls: Duration = Field(
        default=90 * 86_400.0,
        description="Records of calls and attempts. Reports of spend go on from their sums, of latency not.",
    )
    rollups: Duration = Field(
        default=3 * 365 * 86_400.0,
        description=(
            "Their sums by quarters of an hour; never shorter than calls or 32 days, and without end while a "
            "budget counts all that was ever spent (`per: total`)."
        ),
    )
    jobs: Duration = Field(default=30 * 86_400.0, description="Finished batch jobs and their files.")
    receipts: Duration = Field(default=86_400.0, description="Answers kept for a repeated Idempotency-Key.")


class Limits(Section):
    """Limits of size."""

    body_mb: Annotated[float, number("0", "1024")] = Field(
        default=32.0, description="Largest request body in MiB; a larger one is answered with 413."
    )
    event_mb: Annotated[float, number("0", "64")] = Field(
        default=1.0, description="Largest single event of an upstream's stream in MiB."
    )
    file_mb: Annotated[float, number("0", "1048576")] = Field(
        default=2048.0, description="Largest file of a batch in MiB; a larger one is answered with 413."
    )
    batches: Annotated[int, whole(1, 1000)] = Field(
        default=4, description="Batches that are worked at one time; others wait for their turn."
    )


class ClassGoals(Section):
    """What "in time" means for a class of calls."""

    first_event_s: Annotated[Duration | None, OPTIONAL] = Field(
        default=None, description="Goal for the first event of an answer, in seconds."
    )
    total_s: Duration = Field(
        default=86_400.0, description="Goal for the whole answer when a call brings no deadline, in seconds."
    )


class InteractiveGoals(ClassGoals):
    """What "in time" means for interactive calls."""

    first_event_s: Annotated[Duration | None, OPTIONAL] = Field(
        default=2.0, description="Goal for the first event of an answer, in seconds."
    )
    total_s: Duration = Field(
        default=120.0, description="Goal for the whole answer when a call brings no deadline, in seconds."
    )


class Classes(Section):
    """The classes of calls."""

    interactive: InteractiveGoals = Field(
        default_factory=InteractiveGoals, description="Calls that somebody waits for."
    )
    batch: ClassGoals = Field(default_factory=ClassGoals, description="Calls that may take their time.")


class ProviderLimits(Section):
    """What a provider lets us do, or what a server of ours can bear."""

    rpm: Annotated[Annotated[int, whole(1, 10_000_000)] | None, OPTIONAL] = Field(
        default=None, description="Requests per minute that the provider allows."
    )
    tpm: Annotated[Annotated[int, whole(1, 100_000_000_000)] | None, OPTIONAL] = Field(
        default=None, description="Tokens per minute that the provider allows."
    )
    concurrency: Annotated[Annotated[int, whole(1, 100_000)] | None, OPTIONAL] = Field(
        default=None, description="Calls in flight at the same time. None: no limit."
    )
    without_redis: Literal["share", "closed", "open"] = Field(
        default="share",
        description="What these let through while gateways that share them over Redis cannot ask each "
        "other. share: each its part. closed: nothing. open: everything.",
    )


class Cost(Section):
    """What a private server costs, whether it works or waits."""

    gpu_hour_usd: Usd = Field(description="USD per GPU and hour.")
    gpus: Annotated[int, whole(1, 100_000)] = Field(default=1, description="Number of GPUs.")


class Provider(Section):
    """Somebody's API, or a server of ours."""

    api: Api = Field(default="openai", description="The dialect that it speaks.")
    base_url: Annotated[BaseUrl | None, OPTIONAL] = Field(
        default=None,
        description="Where it is, up to and with the version, such as https://api.example.com/v1. Give this "
        "or replicas.",
    )
    replicas: tuple[BaseUrl, ...] = Field(
        default=(), description="Base URLs of servers that hold the same models. Give this or base_url."
    )
    api_keys: tuple[Credential, ...] = Field(
        default=(), description="Its API keys, best as `${NAME}`. They go to its own address only."
    )
    tier: Tier = Field(
        default="hosted",
        description="hosted: somebody's API, text leaves the house. private: a server of ours.",
    )
    reseller: Truth = Field(
        default=False,
        description="Whether prompts pass a third party on their way to the model's maker. "
        "A note for readers only.",
    )
    engine: Annotated[Engine | None, OPTIONAL] = Field(
        default=None,
        description="The software of a private server, where it is known. A note for readers only.",
    )
    cost: Cost | None = Field(default=None, description="What a private server costs.")
    limits: ProviderLimits = Field(
        default_factory=ProviderLimits, description="What it allows, or what it can bear."
    )
    drain_s: Annotated[Annotated[float, number("0", "60")] | None, OPTIONAL] = Field(
        default=None,
        description="For how long the rest of an answer is read for its usage when the caller has left, in "
        "seconds. For hosted providers that bill the whole of it anyway, as some do that hide their "
        "reasoning. None: the provider is told to stop.",
    )
    sends: tuple[HintName, ...] = Field(
        default=(),
        description="What it is sent beside a client's own fields, as keyed hashes: `cache_salt`, of the "
        "tenant (vLLM); `prompt_cache_key`, of the conversation (OpenAI).",
    )
    proxy: Annotated[WebUrl | None, OPTIONAL] = Field(
        default=None, description="HTTP proxy on the way to it. Proxies of the environment are never used."
    )
    ca_file: Annotated[FilePath | None, OPTIONAL] = Field(
        default=None,
        description="PEM file of the authority that signed its certificate, instead of the system's.",
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all its servers."""
        return (self.base_url,) if self.base_url is not None else self.replicas


class ExactCache(Section):
    """Answers that are given again to the same question."""

    when: CacheWhen = Field(
        default="temperature-zero",
        description="temperature-zero: answers to questions that set `temperature` to 0. always: to all that "
        "can be kept. never: none is kept.",
    )
    ttl: Duration = Field(default=3600.0, description="How long an answer is fresh.")
    stale_if_error: DurationOrZero = Field(
        default=3600.0,
        description="How long after that it is given where every target fails, and said to be old. 0: never.",
    )
    tool_calls: Truth = Field(
        default=False,
        description="Whether answers that call tools are kept; whoever is given one acts again.",
    )
    keep: Literal["memory", "store"] = Field(
        default="memory",
        description="memory: in each gateway's own. store: also in Redis where `redis` is set, for all "
        "gateways with the same `store`; else in a file of data_dir, `cache.db`, which outlives a restart.",
    )
    max_mb: Annotated[int, whole(1, 1_000_000)] = Field(default=256, description="Most MiB of answers kept.")


class Cache(Section):
    """Answers from stock."""

    exact: ExactCache = Field(default_factory=ExactCache, description="The tier of exactly equal questions.")
    dry_run: Truth = Field(
        default=False,
        description="Nothing is kept or given; `tiergate report savings --dry-run` says what could be.",
    )
    prefixes: Truth = Field(
        default=False,
        description="Whether keyed hashes of how prompts begin are recorded, for `tiergate report prefixes`.",
    )


class ModelCache(Section):
    """What is kept of one model's answers; what is not set is as `cache.exact` says."""

    when: Annotated[CacheWhen | None, OPTIONAL] = Field(default=None, description="Which answers are kept.")
    ttl: Annotated[Duration | None, OPTIONAL] = Field(
        default=None, description="How long an answer is fresh."
    )
    stale_if_error: Annotated[DurationOrZero | None, OPTIONAL] = Field(
        default=None, description="How long after that it is given where every target fails."
    )
    tool_calls: Annotated[Truth | None, OPTIONAL] = Field(
        default=None, description="Whether answers that call tools are kept."
    )


class Model(Section):
    """A model name for callers, and the targets behind it."""

    targets: tuple[TargetName, ...] = Field(
        min_length=1,
        description="Targets as provider/upstream-name, best first. The model `*` takes provider/* and "
        "stands for every name that is not listed.",
    )
    policy: Policy = Field(default="in-order", description="How a target is chosen.")
    cache: ModelCache = Field(
        default_factory=ModelCache, description="What is kept of its answers, where that differs."
    )


class UsdPer1m(Section):
    """An amount for a million tokens, by bucket; a token falls into exactly one."""

    input: Usd = Field(description="Prompt tokens that no prompt cache held.")
    output: Usd = Field(description="Answer tokens without reasoning.")
    cache_read: Usd | None = Field(
        default=None, description="Prompt tokens read from the provider's cache. None: as input."
    )
    cache_write_5m: Usd | None = Field(
        default=None, description="Prompt tokens written to its cache for 5 minutes. None: as input."
    )
    cache_write_1h: Usd | None = Field(
        default=None, description="Prompt tokens written to its cache for an hour. None: as input."
    )
    reasoning: Usd | None = Field(default=None, description="Reasoning tokens. None: as output.")
    audio_in: Usd | None = Field(
        default=None, description="Audio tokens heard. None: a call with them has no known cost."
    )
    audio_out: Usd | None = Field(
        default=None, description="Audio tokens spoken. None: a call with them has no known cost."
    )


class OtherPer1m(Section):
    """What differs from the standard price under a condition; buckets that are not named cost as always."""

    input: Usd | None = Field(default=None, description="Prompt tokens that no prompt cache held.")
    output: Usd | None = Field(default=None, description="Answer tokens without reasoning.")
    cache_read: Usd | None = Field(default=None, description="Prompt tokens read from the provider's cache.")
    cache_write_5m: Usd | None = Field(default=None, description="Written to its cache for 5 minutes.")
    cache_write_1h: Usd | None = Field(default=None, description="Written to its cache for an hour.")
    reasoning: Usd | None = Field(default=None, description="Reasoning tokens.")
    audio_in: Usd | None = Field(default=None, description="Audio tokens heard.")
    audio_out: Usd | None = Field(default=None, description="Audio tokens spoken.")


class LongInput(Section):
    """The price of calls with a long input, for all of their tokens."""

    input_tokens: Annotated[int, whole(1, 1_000_000_000)] = Field(
        description="Inputs of more tokens than this, cached ones counted, have this price."
    )
    per_1m: OtherPer1m = Field(description="What differs, in the row's currency.")


class PriceHours(Section):
    """Hours of the week with a price of their own, by the provider's clock."""

    days: Annotated[WeekDays | None, OPTIONAL] = Field(
        default=None, description="Days on which they begin, such as mon-fri. None: every day."
    )
    start: DayTime = Field(alias="from", description="When they begin, such as 09:00.")
    end: DayTime = Field(alias="to", description="When they end; earlier than `from`: on the next day.")
    zone: TimeZone = Field(default="UTC", description="Time zone of the hours.")
    per_1m: OtherPer1m = Field(description="What differs, in the row's currency.")


class Price(Section):
    """A dated price of a target."""

    target: TargetName = Field(description="The target as provider/upstream-name.")
    usd_per_1m: UsdPer1m | None = Field(
        default=None, description="USD per million tokens. Give this, or per_1m with its currency."
    )
    per_1m: UsdPer1m | None = Field(
        default=None, description="Amounts of another currency per million tokens."
    )
    currency: Annotated[CurrencyName | None, OPTIONAL] = Field(
        default=None, description="Currency of per_1m, such as EUR."
    )
    usd_per_currency: Usd | None = Field(
        default=None, description="What one unit of the currency costs in USD, as you book it."
    )
    valid_from: Annotated[Day | None, OPTIONAL] = Field(
        default=None, alias="from", description="First day of this price, in UTC. None: since ever."
    )
    until: Annotated[Day | None, OPTIONAL] = Field(
        default=None, description="First day on which it no longer holds, in UTC. None: until the next row."
    )
    above: tuple[LongInput, ...] = Field(default=(), description="Prices of longer inputs, shortest first.")
    hours: tuple[PriceHours, ...] = Field(default=(), description="Hours of the week with another price.")
    service_tiers: Table[TierName, OtherPer1m] = Field(
        default_factory=dict,
        validate_default=True,
        description="Prices of the provider's service tiers, such as batch, flex or priority.",
    )
    per_request: Usd = Field(default=Decimal(0), description="Fee for each call, in the row's currency.")
    billed_by: Literal["received", "completed", "unknown"] = Field(
        default="unknown",
        description="Which moment of a call decides about hours. unknown: the dearer of the two.",
    )
    checked: Annotated[Day | None, OPTIONAL] = Field(
        default=None, description="When somebody last looked; half a year later the price counts as stale."
    )
    source: FreeText = Field(default="settings", description="Where the price was read.")


class Facts(Section):
    """What a target's own documentation says of it, where no data of ours knows it."""

    target: TargetName = Field(description="The target as provider/upstream-name.")
    max_output_tokens: Annotated[int, whole(1, 100_000_000)] = Field(
        description="Its longest answer. A budget holds that much where a call asks for no limit of its own."
    )


class Budget(Section):
    """A ceiling for money."""

    scope: Scope = Field(description="Whose money.")
    usd: Usd = Field(description="The ceiling.")
    per: Literal["total", "day", "week", "month"] = Field(
        default="total", description="Its window; days begin at midnight in `timezone`, weeks on Monday."
    )
    slack_usd: Usd = Field(default=Decimal(0), description="What may be spent beyond it.")
    unbounded: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Calls whose worst case nobody can tell: no known price, no longest answer, pictures. "
        "allow: they pass, are held with nothing and charged with what they cost.",
    )


class CallerLimits(Section):
    """What a key may do, and what one of its calls may ask for.

    Gateways that name one Redis share rpm, tpm and concurrency.
    """

    rpm: Annotated[Annotated[int, whole(1, RPM_MAX)] | None, OPTIONAL] = Field(
        default=None, description="Calls per minute. None: no limit."
    )
    tpm: Annotated[Annotated[int, whole(1, TPM_MAX)] | None, OPTIONAL] = Field(
        default=None, description="Tokens per minute, input and output together. None: no limit."
    )
    concurrency: Annotated[Annotated[int, whole(1, CONCURRENCY_MAX)] | None, OPTIONAL] = Field(
        default=None, description="Calls inside at the same time; a stream is, until it ends. None: no limit."
    )
    max_output_tokens: Annotated[Annotated[int, whole(1, OUTPUT_TOKENS_MAX)] | None, OPTIONAL] = Field(
        default=None,
        description="Longest answer of one choice that a call may ask for, in tokens. One that sets no limit "
        "passes where the model's longest answer is known and within it. None: no cap.",
    )
    max_choices: Annotated[Annotated[int, whole(1, CHOICES_MAX)] | None, OPTIONAL] = Field(
        default=None, description="Choices (n) that a call may ask for. None: no cap."
    )
    max_images: Annotated[Annotated[int, whole(0, IMAGES_MAX)] | None, OPTIONAL] = Field(
        default=None, description="Pictures in all messages of a call. None: no cap."
    )
    max_reasoning_effort: Annotated[Effort | None, OPTIONAL] = Field(
        default=None, description="Most reasoning effort that a call may ask for. None: no cap."
    )
    without_redis: Annotated[Literal["share", "closed", "open"] | None, OPTIONAL] = Field(
        default=None,
        description="What rpm, tpm and concurrency let through while gateways that share them over Redis "
        "cannot ask each other. share, also where nothing is said: each its part. closed: nothing. open: "
        "everything.",
    )


class CallerKey(Section):
    """A key for callers."""

    name: CallerName = Field(description="Its name in records and reports.")
    secret: Credential = Field(description="What the caller sends as Bearer token, best as `${NAME}`.")
    team: Annotated[CallerName | None, OPTIONAL] = Field(
        default=None, description="Team whose tenant it belongs to; None: a tenant of its own."
    )
    limits: CallerLimits = Field(
        default_factory=CallerLimits, description="What it may do in each gateway process."
    )


class Log(Section):
    """What the log holds beside one line per call."""

    bodies: Literal["never", "errors", "all"] = Field(
        default="never", description="Whose prompts and answers are written to the log."
    )


class Alerts(Section):
    """When somebody is told about a budget, or about fast spending."""

    at: tuple[Annotated[float, number("0", "10")], ...] = Field(
        default=(0.5, 0.8, 1.0), description="Parts of a budget at which an alert is sent."
    )
    usd_per_hour: Annotated[UsdAboveZero | None, OPTIONAL] = Field(
        default=None,
        description="An alert is sent when one key's calls cost more than this within an hour, in each "
        "gateway process. None: none is.",
    )
    webhook: Annotated[WebUrl | None, OPTIONAL] = Field(
        default=None, description="URL that alerts are posted to."
    )


ModelTable = Table[ModelName, Model]
