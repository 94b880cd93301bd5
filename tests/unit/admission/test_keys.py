"""The door: who opens it, with how much work, and what it remembers."""

import gc
import sys
from contextlib import suppress

import pytest

from at_once import at_once
from tiergate.admission import Admission, AdmissionStatistics, Keyring
from tiergate.core import LOCAL, Caller, InvalidKey

CI, BOT = Caller(key="ci", team="web"), Caller(key="bot")
SECRET = "tg-" + "k7Jx2" * 8
KEYS = [(SECRET, CI), ("tg-other-key-of-the-bot", BOT)]


def test_a_key_opens_for_its_own_caller() -> None:
    """Each key for one."""
    ring = Keyring(KEYS)
    assert ring.caller(SECRET) is CI
    assert ring.caller("tg-other-key-of-the-bot") is BOT


@pytest.mark.parametrize(
    "credential",
    [
        SECRET[:-1],
        SECRET + "x",
        SECRET.upper(),
        f" {SECRET}",
        f"{SECRET}\n",
        "",
        "x",
        "x" * 100_000,
        "schlüssel",
        "\udcff",
        "\x00",
    ],
)
def test_any_other_key_is_unknown(credential: str) -> None:
    """By one character, by case, by a space; the refusal repeats none of it."""
    with pytest.raises(InvalidKey, match="not known here") as refusal:
        Keyring(KEYS).caller(credential)
    assert credential.strip() == "" or len(credential) < 2 or credential not in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_no_key_is_told_apart_from_a_wrong_one() -> None:
    """With how to send one."""
    with pytest.raises(InvalidKey, match="Authorization: Bearer"):
        Keyring(KEYS).caller(None)


def test_without_keys_nobody_enters() -> None:
    """Deny by default."""
    for credential in (None, "", "x"):
        with pytest.raises(InvalidKey):
            Keyring([]).caller(credential)


def test_in_open_mode_everybody_is_local_but_a_known_key_is_still_known() -> None:
    """An unknown key opens, too: local tools send whatever they have."""
    ring = Keyring(KEYS, is_open=True)
    assert ring.caller(None) is LOCAL
    assert ring.caller("sk-whatever") is LOCAL
    assert ring.caller(SECRET) is CI


def test_a_key_that_header_bytes_spell_differently_is_the_same_key() -> None:
    """The same bytes, decoded strictly or with escapes for what is not ASCII."""
    as_header = "schlüssel".encode().decode("ascii", "surrogateescape")
    assert Keyring([("schlüssel", BOT)]).caller(as_header) is BOT


def test_nothing_that_is_kept_holds_a_key() -> None:
    """Neither what is shown nor what can be reached from the object."""
    ring = Keyring(KEYS)
    door = Admission(ring)
    reached, todo = [], [ring, door]
    seen: set[int] = set()
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type) or hasattr(item, "__globals__"):
            continue
        seen.add(id(item))
        reached.append(item)
        todo.extend(gc.get_referents(item))
    shown = [repr(item) for item in reached]
    assert any("bot" in text for text in shown)
    for text in [repr(ring), repr(door), repr(vars(ring)), repr(vars(door)), *shown]:
        assert SECRET not in text and "other-key" not in text


def test_every_unknown_key_takes_the_same_work() -> None:
    """Counted in steps of the interpreter: sharing a long prefix with a key changes nothing."""

    def steps(credential: str) -> int:
        count = 0

        def watch(*_: object) -> object:
            nonlocal count
            count += 1
            return watch

        ring = Keyring(KEYS)
        before = sys.gettrace()
        sys.settrace(watch)
        try:
            ring.caller(credential)
        except InvalidKey:
            pass
        finally:
            sys.settrace(before)
        return count

    wrong = [SECRET[:-1] + "x", "x" + SECRET[1:], SECRET[:5] + "x" * (len(SECRET) - 5), "x" * len(SECRET)]
    assert len({steps(credential) for credential in wrong}) == 1


def test_calls_are_counted_while_they_are_inside() -> None:
    """By key; whoever leaves by an exception leaves, too, and nothing stays behind."""
    door = Admission(Keyring(KEYS))
    with at_once(door.visit(CI)), at_once(door.visit(BOT)):
        with suppress(RuntimeError), at_once(door.visit(CI)):
            assert door.statistics() == AdmissionStatistics(inside={"ci": 2, "bot": 1})
            raise RuntimeError
        assert door.statistics() == AdmissionStatistics(inside={"ci": 1, "bot": 1})
    assert door.statistics() == AdmissionStatistics(inside={})


def test_a_reload_changes_who_may_enter_and_not_who_is_inside() -> None:
    """A revoked key is refused at once; its call goes on."""
    door = Admission(Keyring(KEYS))
    with at_once(door.visit(door.identify(SECRET))):
        door.use(Keyring([("tg-new", BOT)]))
        with pytest.raises(InvalidKey):
            door.identify(SECRET)
        assert door.identify("tg-new") is BOT
        assert door.statistics().inside == {"ci": 1}
    assert door.statistics().inside == {}
