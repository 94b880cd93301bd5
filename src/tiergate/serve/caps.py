"""Caps of a key: what one call may ask for of the fields that multiply its cost. Pure.

They look at the body that is forwarded and change nothing in it. What they cannot read as a provider would is
refused: a cap that a strange value passes by is none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from tiergate.catalog import ModelFacts
from tiergate.core import REASONING_EFFORTS, Call, Caps, DataClass, InvalidRequest, Target, Tier
from tiergate.wire import choices_asked, output_tokens_asked

_PICTURES: Final = ("image_url", "input_image", "image")
_REASONING_TOKENS: Final = (("reasoning", "max_tokens"), ("thinking", "budget_tokens"))
"""Where OpenRouter and Anthropic take a number of tokens instead of an effort."""


def check_caps(call: Call, targets: Sequence[Target], facts: Callable[[Target], ModelFacts]) -> None:
    """Refuse a call that asks for more than its key may.

    Args:
        call: whose caller has the caps.
        targets: those that its model has for this key.
        facts: what is known of a target.

    Raises:
        InvalidRequest: `param` names the field; nothing was held for it.
    """
    caps, body = call.caller.caps, call.body
    if caps is None:
        return
    if caps.output_tokens is not None:
        _check_output(call, caps.output_tokens, targets, facts)
    if caps.choices is not None:
        _check_choices(body, caps.choices)
    if caps.images is not None:
        _check_images(body, caps.images)
    _check_reasoning(body, caps)


def _check_output(
    call: Call, cap: int, targets: Sequence[Target], facts: Callable[[Target], ModelFacts]
) -> None:
    asked = output_tokens_asked(call.body)
    if asked is None:
        if not _keeps_within(call, cap, targets, facts):
            raise InvalidRequest(
                f"This key may ask for answers of at most {_counted(cap, 'token')} (max_output_tokens), and "
                "this call sets no limit. Send `max_tokens` with that or less.",
                param="max_tokens",
            )
        return
    if asked > cap:
        name = "max_tokens" if call.body.get("max_tokens") == asked else "max_completion_tokens"
        raise InvalidRequest(
            f"This key may ask for answers of at most {_counted(cap, 'token')} (max_output_tokens), and "
            f"`{name}` asks for {asked}. Send that or less.",
            param=name,
        )


def _keeps_within(
    call: Call, cap: int, targets: Sequence[Target], facts: Callable[[Target], ModelFacts]
) -> bool:
    """Tell whether every target that may answer has a longest answer that is known and within the cap."""
    is_private = call.data_class is DataClass.PRIVATE_ONLY
    return all(
        (longest := facts(target).output_tokens) is not None and longest <= cap
        for target in targets
        if not is_private or target.tier is Tier.PRIVATE
    )


def _check_choices(body: Mapping[str, Any], cap: int) -> None:
    best_of = body.get("best_of")
    for name, asked in (("n", choices_asked(body)), ("best_of", 1 if best_of is None else best_of)):
        if type(asked) is not int or asked > cap:
            raise InvalidRequest(
                f"This key may ask for at most {_counted(cap, 'choice')} (max_choices). Send a whole number "
                f"up to that as `{name}`, or leave it out.",
                param=name,
            )


def _check_images(body: Mapping[str, Any], cap: int) -> None:
    found = sum(map(_is_picture, _parts(body.get("messages"))))
    if found > cap:
        raise InvalidRequest(
            f"This key may send at most {_counted(cap, 'picture')} with a call (max_images), and the "
            f"messages hold {found}. Leave some out.",
            param="messages",
        )


def _parts(messages: object) -> Iterator[object]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        yield from content if isinstance(content, list) else ()


def _is_picture(part: object) -> bool:
    # Some servers go by the fields that a part has, where its type is another one or left out.
    return isinstance(part, dict) and (
        part.get("type") in _PICTURES or any(name in part for name in _PICTURES)
    )


def _check_reasoning(body: Mapping[str, Any], caps: Caps) -> None:
    if caps.output_tokens is None and caps.reasoning_effort is None:
        return
    for name in ("reasoning", "thinking"):
        if not isinstance(body.get(name) or {}, dict):
            raise InvalidRequest(f"`{name}` must be an object.", param=name)
    for outer, inner in _REASONING_TOKENS:
        tokens = (body.get(outer) or {}).get(inner)
        if tokens is not None:
            _check_reasoning_tokens(f"{outer}.{inner}", tokens, caps)
    if caps.reasoning_effort is not None:
        effort = (body.get("reasoning") or {}).get("effort")
        _check_effort("reasoning_effort", body.get("reasoning_effort"), caps.reasoning_effort)
        _check_effort("reasoning.effort", effort, caps.reasoning_effort)


def _check_reasoning_tokens(name: str, tokens: object, caps: Caps) -> None:
    if caps.reasoning_effort is not None:
        raise InvalidRequest(
            f"This key may ask for reasoning effort up to {caps.reasoning_effort} (max_reasoning_effort), "
            f"which `{name}` cannot be compared with. Send `reasoning_effort` instead.",
            param=name,
        )
    cap = caps.output_tokens
    assert cap is not None
    if type(tokens) is not int or tokens > cap:
        raise InvalidRequest(
            f"This key may ask for answers of at most {_counted(cap, 'token')} (max_output_tokens), "
            f"reasoning included. Send a whole number up to that as `{name}`, or leave it out.",
            param=name,
        )


def _check_effort(name: str, effort: object, cap: str) -> None:
    if effort is None:
        return
    allowed = REASONING_EFFORTS[: REASONING_EFFORTS.index(cap) + 1]
    if effort not in allowed:
        raise InvalidRequest(
            f"This key may ask for reasoning effort up to {cap} (max_reasoning_effort). Send "
            f"{' or '.join(allowed)} as `{name}`, or leave it out.",
            param=name,
        )


def _counted(amount: int, what: str) -> str:
    return f"{amount} {what}" if amount == 1 else f"{amount} {what}s"
