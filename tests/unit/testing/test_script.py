"""Scripts: how they are read, what is refused, and which behaviour a request gets."""

from dataclasses import fields
from pathlib import Path

import pytest

from tiergate.capacity import EngineModel
from tiergate.core import SettingsError
from tiergate.testing import Behaviour, Rule, Script, When
from tiergate.testing.player import Player, Visit

CHAT = "/v1/chat/completions"
ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "mock-script.yaml"
REFERENCE = ROOT / "docs" / "reference" / "mock.md"


def visit(model: str = "m", *, wish: str | None = None, streamed: bool = False, **headers: str) -> Visit:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Visit(path=CHAT, headers=named, model=model, streamed=streamed, wish=wish)


def statuses(script: Script, visits: list[Visit]) -> list[int]:
    player = Player(script)
    return [player.choose(each).behaviour.status for each in visits]


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Script.from_yaml(text)
    return str(caught.value)


def test_an_empty_script_answers_everything_at_once() -> None:
    """No text at all is a script: every request gets a complete answer."""
    script = Script.from_yaml("")

    assert script == Script()
    cue = Player(script).choose(visit())
    assert cue.behaviour.answers
    assert (cue.ttft_s, cue.gap_s) == (0.0, 0.0)


def test_rules_and_names_are_laid_over_the_default() -> None:
    """A rule's behaviour keeps what the default says and changes only its own keys."""
    script = Script.from_yaml(
        """
        default: {words: 40, ttft_ms: 250}
        behaviours: {down: {status: 503}}
        rules: [{when: {model: "gpt-*"}, then: down}, {then: {no_done: true}}]
        """
    )

    assert script.rules[0].then == Behaviour(words=40, ttft_ms=250, status=503)
    assert script.rules[1].then == Behaviour(words=40, ttft_ms=250, no_done=True)


def test_the_example_is_a_good_script() -> None:
    """examples/mock-script.yaml loads, and has rules and named behaviours."""
    script = Script.from_yaml(EXAMPLE.read_text())

    assert script.rules
    assert script.behaviours


@pytest.mark.parametrize("kind", [Behaviour, When, Script, EngineModel])
def test_the_reference_has_a_row_for_every_key(kind: type) -> None:
    """docs/reference/mock.md: nothing that a script can say is left out."""
    rows = {line.split("|")[1].strip() for line in REFERENCE.read_text().splitlines() if line.startswith("|")}

    assert {f"`{field.name}`" for field in fields(kind)} <= rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: {stal_after: 3}", "script.default: unknown key 'stal_after'; did you mean 'stall_after'?"),
        ("default: {ttft_ms: soon}", "script.default.ttft_ms: Expected `float`, got `str`"),
        ("default: {ttft_ms: -1}", "script.default.ttft_ms: Expected `float` >= 0.0"),
        ("default: {error_rate: 1.5}", "script.default.error_rate: Expected `float` <= 1.0"),
        ("rules: [{when: {modle: x}, then: {}}]", "script.rules[0].when: unknown key 'modle'"),
        ("rules: [{when: {}}]", "script.rules[0]: the key 'then' is missing"),
        ("rules: [{then: slow}]", "script.rules[0].then: no behaviour is named 'slow'; named are: none"),
        ("engine: {slots: 0}", "script.engine: slots must be above 0"),
        ("engine: {slot: 4}", "script.engine: unknown key 'slot'; did you mean 'slots'?"),
        ("behaviours: {a: {words: many}}", "script.behaviours.a.words: Expected `int | array`, got `str`"),
        ("default: [1]", "script.default: must hold keys and values, not list '[1]'"),
        ("rpm: 0", "script.rpm: Expected `int` >= 1"),
        ("default: {words: 3", "script: line 1, column 19"),
        ("default: {encode: br}", "script.default.encode: "),
        ("default: {empty_members: 3}", "script.default: empty_members needs an 'encode'"),
        (
            "behaviours: {a: {encode: [gzip, deflate], empty_members: 3}}",
            "script.behaviours.a: empty_members needs an 'encode' that ends with gzip",
        ),
        ("default: {crlf: true, mixed_line_ends: true}", "script.default: crlf and mixed_line_ends cannot"),
        ("default: {raw: 'a\u0100'}", "script.default: raw holds a character above U+00FF"),
        ("seed: 1\nsped: 2", "script: unknown key 'sped'; did you mean 'seed'?"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_its_key(text: str, said: str) -> None:
    """Each mistake is named with its place in the script."""
    assert said in problem(text)


def test_all_mistakes_of_one_mapping_are_told_at_once() -> None:
    """Two wrong keys give two sentences."""
    with pytest.raises(SettingsError) as caught:
        Script.from_yaml("default: {wrods: 3, crfl: true}")
    assert len(caught.value.problems) == 2


def test_the_first_rule_that_fits_decides() -> None:
    """Patterns on the model's name; what no rule fits gets the default."""
    script = Script(
        rules=(
            Rule(when=When(model="gpt-*"), then=Behaviour(status=501)),
            Rule(when=When(model="gpt-4"), then=Behaviour(status=502)),
        )
    )

    assert statuses(script, [visit("gpt-4"), visit("other")]) == [501, 200]


def test_nth_and_first_count_the_requests_that_fit_otherwise() -> None:
    """Requests of other models do not count."""
    nth = Script(rules=(Rule(when=When(model="a", nth=(2, 4)), then=Behaviour(status=500)),))
    first = Script(rules=(Rule(when=When(model="a", first=2), then=Behaviour(status=500)),))
    visits = [visit("a"), visit("b"), visit("a"), visit("b"), visit("a"), visit("a")]

    assert statuses(nth, visits) == [200, 200, 500, 200, 200, 500]
    assert statuses(first, visits) == [500, 200, 500, 200, 200, 200]


def test_headers_and_streaming_can_be_asked_for() -> None:
    """A pattern on a header, the absence of one, and streamed requests only."""
    script = Script(
        rules=(
            Rule(when=When(header={"Authorization": None}), then=Behaviour(status=401)),
            Rule(when=When(header={"authorization": "*bad"}), then=Behaviour(status=403)),
            Rule(when=When(stream=True), then=Behaviour(status=500)),
        )
    )
    visits = [
        visit(),
        visit(authorization="Bearer bad"),
        visit(authorization="Bearer good"),
        visit(authorization="Bearer good", streamed=True),
    ]

    assert statuses(script, visits) == [401, 403, 200, 500]


def test_chance_is_drawn_with_the_seed() -> None:
    """The same seed gives the same sequence, another seed another one, and the share is about right."""

    def drawn(seed: int) -> list[int]:
        rule = Rule(when=When(probability=0.3), then=Behaviour(status=500))
        return statuses(Script(seed=seed, rules=(rule,)), [visit()] * 1_000)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 240 < drawn(1).count(500) < 360


def test_error_rate_turns_the_status_into_a_chance() -> None:
    """With a rate, the status is answered in that share only; without an error status it is 500."""
    scripted = statuses(Script(default=Behaviour(status=503, error_rate=0.5)), [visit()] * 400)
    unnamed = statuses(Script(default=Behaviour(error_rate=0.5)), [visit()] * 400)

    assert set(scripted) == {200, 503}
    assert set(unnamed) == {200, 500}
    assert 140 < scripted.count(503) < 260


def test_truncate_rate_cuts_answers_off() -> None:
    """In the given share an answer is cut cleanly after 1 to 8 events."""
    player = Player(Script(default=Behaviour(truncate_rate=0.5)))
    cuts = [player.choose(visit()).behaviour.clean_cut_after for _ in range(400)]

    assert 140 < sum(cut is not None for cut in cuts) < 260
    assert {cut for cut in cuts if cut is not None} == set(range(1, 9))


def test_the_pace_spreads_around_what_the_script_says() -> None:
    """Lognormal factors have the median 1: half of the draws lie above the script's own figure."""
    player = Player(Script(default=Behaviour(ttft_ms=100, ttft_spread=0.5, tokens_per_s=50, rate_spread=0.5)))
    cues = [player.choose(visit()) for _ in range(1_000)]

    assert 440 < sum(cue.ttft_s > 0.1 for cue in cues) < 560
    assert 440 < sum(cue.gap_s > 0.02 for cue in cues) < 560
    assert len({cue.ttft_s for cue in cues}) == 1_000


@pytest.mark.parametrize(
    "wish",
    ["stall_after=3, no_done, reply=one two", "{stall_after: 3, no_done: true, reply: one two}"],
)
def test_a_request_may_wish_for_a_behaviour(wish: str) -> None:
    """In short form or as YAML, in the message or in a header, laid over what the rules chose."""
    script = Script(default=Behaviour(ttft_ms=5))
    expected = Behaviour(ttft_ms=5, stall_after=3, no_done=True, reply="one two")

    assert Player(script).choose(visit(wish=wish)).behaviour == expected
    assert Player(script).choose(visit(x_mock_behaviour=wish)).behaviour == expected


def test_a_wish_may_name_a_behaviour_of_the_script() -> None:
    """A name takes the whole named behaviour."""
    script = Script(behaviours={"down": Behaviour(status=503)})

    assert Player(script).choose(visit(wish=" down ")).behaviour == Behaviour(status=503)


@pytest.mark.parametrize("wish", ["stall_afer=3", "stall_after=x", "{stall_after: [", "error_rate=7"])
def test_a_wish_that_cannot_be_is_refused(wish: str) -> None:
    """A wrong key, a wrong value, or no YAML."""
    with pytest.raises(SettingsError, match="mock"):
        Player(Script()).choose(visit(wish=wish))
