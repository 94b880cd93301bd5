"""What the admin plane works with: callables that whoever builds the house hands in."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiergate.admin.keys import KeyWish
from tiergate.admission import VirtualKey
from tiergate.ledger import Balance, Entry, EntryQuery
from tiergate.reports import Past


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Questions that can be asked and things that can be done.

    Attributes:
        balances: every budget in its window of now.
        find: entries of the ledger, newest first.
        resolve: call, attempt, cost in nano-dollars: settles a lapsed attempt; False: there is none.
        adjust: call, attempt, difference in nano-dollars, reason: corrects a settled one; False: it cannot.
        past: what reports are made of, up to now.
        zone: the time zone of their days.
        list_keys: the virtual keys, revoked ones too.
        create_key: makes one; gives it with the key itself. Raises `InvalidRequest` where the name is taken.
        revoke_key: takes one out of use by its name; False: there is none.
        rotate_key: name, seconds that the old one is still good; None: there is none.
        targets: the state of every provider and of its models.
        isolate: provider, model (empty: all of the provider); leaves it alone. False: no such provider.
        restore: the same; asks it again. False: no such provider.
        cache: what is kept of answers, and what became of calls and answers there since the start.
        purge: team, key, model (None: any): deletes what is kept of them; gives how many answers.
        erase: team, key (one of them): deletes all text that is kept of a tenant; gives how much of what.
        settings: those in force, secrets hidden.
        reload: reads the settings again; False: they were refused, and the log says why.
        metrics: the page for Prometheus.
        wall_ns: now, nanoseconds since 1970.
    """

    balances: Callable[[], Awaitable[Sequence[Balance]]]
    find: Callable[[EntryQuery], Awaitable[Sequence[Entry]]]
    resolve: Callable[[str, int, int], Awaitable[bool]]
    adjust: Callable[[str, int, int, str], Awaitable[bool]]
    past: Callable[[], Awaitable[Past]]
    zone: Callable[[], str]
    list_keys: Callable[[], Sequence[VirtualKey]]
    create_key: Callable[[KeyWish], Awaitable[tuple[VirtualKey, str]]]
    revoke_key: Callable[[str], Awaitable[bool]]
    rotate_key: Callable[[str, float], Awaitable[tuple[VirtualKey, str] | None]]
    targets: Callable[[], Sequence[Mapping[str, Any]]]
    isolate: Callable[[str, str], bool]
    restore: Callable[[str, str], bool]
    cache: Callable[[], Mapping[str, Any]]
    purge: Callable[[str | None, str | None, str | None], Awaitable[int]]
    erase: Callable[[str | None, str | None], Awaitable[Mapping[str, int]]]
    settings: Callable[[], Mapping[str, Any]]
    reload: Callable[[], Awaitable[bool]]
    metrics: Callable[[], Awaitable[bytes]]
    wall_ns: Callable[[], int]
