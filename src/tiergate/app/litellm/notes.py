"""What of a LiteLLM file has no counterpart, or another meaning here: each said once, with all its places."""

from dataclasses import dataclass, field
from typing import Final

NO_COUNTERPART: Final = "has no counterpart"
_SHOWN: Final = 20


@dataclass(slots=True)
class Notes:
    """Sentences in the order in which they came up, each with the places that it is about."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def say(self, place: str, sentence: str) -> None:
        """Note a sentence about a place."""
        self.places.setdefault(sentence, []).append(place)

    def rest(self, place: str, names: object, taken: frozenset[str]) -> None:
        """Note the settings of a section that were not taken, each with what is known to be said of it."""
        for name in names if isinstance(names, dict) else ():
            if name not in taken:
                self.say(f"{place}.{name}", _sentence(str(name)))

    def lines(self) -> list[str]:
        """Give one line for each sentence: what it is about, and the sentence."""
        return [f"{_places(places)}: {sentence}" for sentence, places in self.places.items()]


def _places(places: list[str]) -> str:
    shown, more = places[:_SHOWN], len(places) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _sentence(name: str) -> str:
    return next(
        (said for words, said in _KNOWN if any(_fits(word, name) for word in words.split())), NO_COUNTERPART
    )


def _fits(word: str, name: str) -> bool:
    return word == name or (len(word) > 3 and word in name)


_KNOWN: Final = (
    ("drop_params modify_params", "not needed: what a caller asks for goes to the provider unchanged"),
    ("callback langfuse otel prometheus logging json_logs",
     "the log has one JSON line for each call; nothing is sent elsewhere yet"),
    ("redis", "gateways with one `redis` share the rates of their providers; nothing else is there"),
    ("cache", "no answer is given from stock yet"),
    ("database store_model spend_logs", "the ledger is SQLite in `data_dir`; settings stand in the file"),
    ("budget", "write it under `budgets`: by key, team, model or tier, per day, week or month"),
    ("rpm tpm", "a provider's are set under its `limits`"),
    ("cooldown allowed_fails retry_policy retry_after",
     "what fails is left alone by itself; `resilience` says when"),
    ("routing_strategy weight", "targets are tried in order, the first of the file first"),
    ("context_window_fallbacks content_policy_fallbacks",
     "a request that is itself at fault goes to no other target; the caller is told"),
    ("api_version", "not needed: Azure's v1 endpoint is called"),
    ("verbose debug telemetry", "not needed: nothing is sent home, and the log says what happened"),
    ("timeout", "times are set for all calls, under `resilience`"),
    ("temperature max_tokens top_p extra_body seed reasoning_effort stop stream",
     "callers say it with each call; nothing is added"),
    ("supports_ base_model max_input max_output id description", "a note about the model; not needed"),
)  # fmt: skip
"""Parts of names (short ones: whole names), and what is said of such a setting; the first that fits."""
