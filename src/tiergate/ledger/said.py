"""What a ceiling says when it refuses: which one, how much, until when, and what helps."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tiergate.core import Target, usd_text
from tiergate.ledger.ceilings import Balance


def exceeded_sentence(amount_nanos: int | None, balance: Balance) -> str:
    """Say that an amount does not fit any more; None: nobody knows how much it would be."""
    most = "" if amount_nanos is None else f"This call could cost up to ${usd_text(amount_nanos)}. "
    return f"{_state(balance)} {most}{_until(balance)}"


def busy_sentence(amount_nanos: int, balance: Balance) -> str:
    """Say that an amount does not fit while others are in flight."""
    return (
        f"{_state(balance)} This call could cost up to ${usd_text(amount_nanos)}; it fits when some of what "
        "is held has settled for less. Try again shortly."
    )


def unbounded_sentence(target: Target, balance: Balance) -> str:
    """Say that nobody can tell what a call could cost."""
    return (
        f"The budget {balance.ceiling.id} cannot hold a call to {target.name}, since nobody can tell what it "
        "could cost at most: its price or its longest answer is not known, or the question holds something "
        "else than text. Set max_tokens, give the target a price and its longest answer (`prices`, "
        "`facts`), or let such calls pass (unbounded: allow)."
    )


def _state(balance: Balance) -> str:
    lapsed = f" (${usd_text(balance.lapsed_nanos)} of it lapsed)" if balance.lapsed_nanos else ""
    slack = balance.ceiling.slack_nanos
    more = f" and ${usd_text(slack)} of slack" if slack else ""
    return (
        f"The budget {balance.ceiling.id} is ${usd_text(balance.ceiling.amount_nanos)}{more}: "
        f"${usd_text(balance.spent_nanos)} spent{lapsed}, ${usd_text(balance.held_nanos)} held."
    )


def _until(balance: Balance) -> str:
    end_ns, zone = balance.window.end_ns, balance.ceiling.zone
    if end_ns is None:
        return "It does not begin anew; raise it to go on, or ask for fewer tokens."
    clock = UTC if zone == "UTC" else ZoneInfo(zone)
    moment = datetime.fromtimestamp(end_ns // 1_000_000_000, clock)
    return f"It begins anew at {moment.isoformat()}."
