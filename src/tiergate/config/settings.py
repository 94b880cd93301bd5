"""The settings object: everything that a user may set, validated, frozen, its secrets hidden."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tiergate.config.addresses import Address
from tiergate.config.contradictions import contradictions
from tiergate.config.patience import Resilience
from tiergate.config.scalar import TOGETHER
from tiergate.config.sections import (
    OPTIONAL,
    Admin,
    Alerts,
    Budget,
    Cache,
    CallerKey,
    Classes,
    Facts,
    Limits,
    Log,
    ModelTable,
    Price,
    Provider,
    Retention,
    Section,
    Table,
)
from tiergate.config.values import (
    CorsOrigin,
    FilePath,
    HostName,
    Listen,
    Passphrase,
    ProviderName,
    RedisUrl,
    StoreUrl,
    TimeZone,
)


class Settings(Section):
    """Everything that a user may set. Amounts are USD as Decimal, durations seconds as float."""

    listen: Listen = Field(
        default=Address("127.0.0.1:4400"),
        description="Address of the data plane, host:port; port 0 takes a free one.",
    )
    admin: Admin = Field(default_factory=Admin, description="The admin plane.")
    data_dir: FilePath = Field(
        default=Path("tiergate-data"),
        description="Folder of the ledger and the lock; relative to the folder of this file.",
    )
    store: Annotated[StoreUrl | None, OPTIONAL] = Field(
        default=None,
        description="None: SQLite in data_dir. Or postgresql://user:password@host/db, for several replicas; "
        "it needs the extra `postgres` and `secret`.",
    )
    redis: Annotated[RedisUrl | None, OPTIONAL] = Field(
        default=None,
        description="redis://host:6379/0: gateways with the same one and the same `secret` share the rates "
        "of their providers. It needs the extra `redis`. None: each has the whole of them.",
    )
    secret: Annotated[Passphrase | None, OPTIONAL] = Field(
        default=None,
        description="A root for hashes and signatures.",
    )
    auth: Literal["open", "keys"] = Field(
        default="open",
        description="open: everybody on this machine may call (loopback only). keys: callers bring a key.",
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Host names that requests may be addressed to. On loopback its names are accepted too.",
    )
    cors: tuple[CorsOrigin, ...] = Field(
        default=(), description="Exact origins of browser pages that may call. None: browsers are refused."
    )
    timezone: TimeZone = Field(
        default="UTC", description="Time zone of budget windows, of days in reports and of times in tables."
    )
    retention: Retention = Field(default_factory=Retention, description="How long records are kept.")
    limits: Limits = Field(default_factory=Limits, description="Limits of size.")
    classes: Classes = Field(default_factory=Classes, description="What in time means.")
    providers: Table[ProviderName, Provider] = Field(
        min_length=1,
        description="Who can answer: somebody's API, or a server of ours, under a name of your choice.",
    )
    models: ModelTable = Field(
        default_factory=dict,
        validate_default=True,
        description="Model names for callers. provider/upstream-name is always valid beside them.",
    )
    prices: tuple[Price, ...] = Field(
        default=(), description="Prices; the cost of a hosted target without one is unknown."
    )
    facts: tuple[Facts, ...] = Field(
        default=(), description="Limits of targets; they win over the data that comes along."
    )
    budgets: tuple[Budget, ...] = Field(default=(), description="Ceilings for money.")
    keys: tuple[CallerKey, ...] = Field(default=(), description="Keys for callers.")
    cache: Cache = Field(default_factory=Cache, description="Answers from stock.")
    resilience: Resilience = Field(
        default_factory=Resilience, description="How long to wait, how often to try."
    )
    log: Log = Field(default_factory=Log, description="What the log holds.")
    alerts: Alerts = Field(default_factory=Alerts, description="When somebody is told about a budget.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse settings that are each right and together wrong, each at its own place."""
        found = contradictions(self)
        if found:
            details = [
                InitErrorDetails(
                    type=PydanticCustomError(TOGETHER, "{said}", {"said": sentence}), loc=path, input=None
                )
                for path, sentence in found
            ]
            raise ValidationError.from_exception_data("Settings", details, hide_input=True)
        return self
