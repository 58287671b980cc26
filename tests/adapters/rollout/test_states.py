"""The effect of each command, and the commands that are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.rollout.commands import command, in_state, run, serving, staged_and_warmed, states
from rankloom_adapters.rollout.states import (
    LOADED,
    MAX_RETIRED,
    ON_TRIAL,
    KeyReusedError,
    Ledger,
    RolloutError,
    RolloutState,
    StaleError,
    TransitionError,
    UnknownRolloutError,
    Verb,
    after,
)
from rankloom_adapters.rollout.traffic import traffic_of


def test_a_new_revision_goes_all_the_way() -> None:
    ledger, number = staged_and_warmed(serving(), "second")
    ledger = run(ledger, Verb.SHADOW, number)
    ledger = run(ledger, Verb.CANARY, number, percent=5)
    ledger = run(ledger, Verb.CANARY, number, percent=50)
    assert ledger.rollout(number).percent == 50
    ledger = run(ledger, Verb.PROMOTE, number)
    assert states(ledger) == {1: RolloutState.WARMED, 2: RolloutState.ACTIVE}
    assert (ledger.active, ledger.on_trial) == (2, 0)
    assert ledger.rollout(2).percent == 0


@pytest.mark.parametrize(
    ("verbs", "has_served"),
    [
        ([], False),
        ([Verb.ROLL_BACK], False),
        ([Verb.ROLL_BACK, Verb.RETIRE], False),
        ([Verb.SHADOW], True),
        ([Verb.CANARY], True),
        ([Verb.PROMOTE], True),
        ([Verb.SHADOW, Verb.ROLL_BACK], True),
        ([Verb.CANARY, Verb.ROLL_BACK, Verb.RETIRE], True),
    ],
)
def test_whether_one_has_served_is_remembered(verbs: list[Verb], has_served: bool) -> None:
    ledger, number = staged_and_warmed(serving())
    for verb in verbs:
        ledger = run(ledger, verb, number, percent=5)
    assert ledger.rollout(number).has_served == has_served
    assert (number in traffic_of(ledger).pinnable) == has_served


def test_what_was_active_has_served() -> None:
    ledger, number = staged_and_warmed(serving())
    ledger = run(ledger, Verb.PROMOTE, number)
    assert ledger.rollout(1).state is RolloutState.WARMED
    assert traffic_of(ledger).pinnable == {1, 2}


def test_rolling_back_what_is_active_returns_to_what_was() -> None:
    ledger, number = staged_and_warmed(serving())
    ledger = run(run(ledger, Verb.PROMOTE, number), Verb.ROLL_BACK, number, reason="slow")
    assert states(ledger) == {1: RolloutState.ACTIVE, 2: RolloutState.ROLLED_BACK}
    assert ledger.rollout(2).reason == "slow"


def test_of_what_was_retired_the_last_are_known() -> None:
    ledger, kept = staged_and_warmed(serving(), "kept")
    for _ in range(MAX_RETIRED + 5):
        ledger, number = staged_and_warmed(ledger)
        retire = command(Verb.RETIRE, number, ledger.active)
        ledger, gone = after(ledger, retire)
        assert after(ledger, retire) == (ledger, gone)
    assert len(in_state(ledger, RolloutState.RETIRED)) == MAX_RETIRED
    assert {each for _, each in ledger.commands.values()} == set(ledger.rollouts)
    assert (ledger.active, states(ledger)[kept]) == (1, RolloutState.WARMED)
    assert ledger.newest == number == MAX_RETIRED + 7
    with pytest.raises(UnknownRolloutError, match="revision 3 was retired long ago"):
        ledger.rollout(3)
    assert max(run(ledger, Verb.STAGE).rollouts) == number + 1


def test_one_that_is_retired_late_is_known_until_the_next_command() -> None:
    ledger, early = staged_and_warmed(serving())
    for _ in range(MAX_RETIRED):
        ledger, number = staged_and_warmed(ledger)
        ledger = run(ledger, Verb.RETIRE, number)
    retire = command(Verb.RETIRE, early, ledger.active)
    ledger, gone = after(ledger, retire)
    assert after(ledger, retire) == (ledger, gone)
    assert early not in run(ledger, Verb.STAGE).rollouts


@pytest.mark.parametrize("verb", [Verb.SHADOW, Verb.CANARY])
def test_rolling_back_a_trial_leaves_the_active_one(verb: Verb) -> None:
    ledger, number = staged_and_warmed(serving())
    ledger = run(ledger, verb, number, **({"percent": 5} if verb is Verb.CANARY else {}))
    ledger = run(ledger, Verb.ROLL_BACK, number)
    assert states(ledger) == {1: RolloutState.ACTIVE, 2: RolloutState.ROLLED_BACK}


def test_what_is_gone_is_nothing_to_go_back_to() -> None:
    ledger, number = staged_and_warmed(serving())
    ledger = run(run(ledger, Verb.PROMOTE, number), Verb.RETIRE, 1)
    with pytest.raises(TransitionError, match="no earlier revision is loaded"):
        run(ledger, Verb.ROLL_BACK, number)


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    with pytest.raises(TransitionError, match="no earlier revision is loaded"):
        run(serving(), Verb.ROLL_BACK, 1)


@pytest.mark.parametrize("verb", [Verb.SHADOW, Verb.CANARY, Verb.PROMOTE])
def test_there_is_one_trial_at_a_time(verb: Verb) -> None:
    ledger, first = staged_and_warmed(serving())
    ledger, second = staged_and_warmed(run(ledger, Verb.SHADOW, first))
    with pytest.raises(TransitionError, match="revision 2 is on trial"):
        run(ledger, verb, second, percent=1)


@pytest.mark.parametrize("verb", [Verb.SHADOW, Verb.CANARY, Verb.PROMOTE])
def test_what_was_not_warmed_goes_nowhere(verb: Verb) -> None:
    ledger = run(serving(), Verb.STAGE)
    with pytest.raises(TransitionError, match=f"revision 2 is staged; {verb.value} is not"):
        run(ledger, verb, 2, percent=1)


@pytest.mark.parametrize("percent", [0, 100, -1])
def test_a_canary_is_a_part_of_the_users(percent: int) -> None:
    ledger, number = staged_and_warmed(serving())
    with pytest.raises(TransitionError, match="takes 1 to 99 percent"):
        run(ledger, Verb.CANARY, number, percent=percent)


def test_who_believes_another_revision_active_is_told() -> None:
    ledger, number = staged_and_warmed(serving())
    with pytest.raises(StaleError, match="revision 1 is active now") as caught:
        after(ledger, command(Verb.PROMOTE, number, expected=7))
    assert caught.value.current == 1


def test_unknown_revisions_are_named() -> None:
    with pytest.raises(UnknownRolloutError, match="no revision 9"):
        run(serving(), Verb.PROMOTE, 9)


def test_the_same_command_again_changes_nothing() -> None:
    ledger, number = staged_and_warmed(serving())
    promote = command(Verb.PROMOTE, number, expected=1)
    once, subject = after(ledger, promote)
    twice, again = after(once, promote)
    assert twice is once, "even though another revision is active by now"
    assert again == subject


def test_a_key_is_for_one_command() -> None:
    ledger, number = staged_and_warmed(serving())
    ledger = run(ledger, Verb.SHADOW, number, key="mine")
    with pytest.raises(KeyReusedError):
        run(ledger, Verb.PROMOTE, number, key="mine")


_COMMANDS = st.tuples(
    st.sampled_from(Verb), st.integers(0, 4), st.integers(0, 4), st.integers(0, 100)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_COMMANDS, max_size=60))
def test_whatever_is_asked_the_rules_hold(asked: list[tuple[Verb, int, int, int]]) -> None:
    ledger = Ledger()
    for verb, number, expected, percent in asked:
        before, had_active = ledger, ledger.active
        # Often the right expectation, so that many commands are carried out.
        believes = expected if expected == 4 else ledger.active
        try:
            ledger, subject = after(ledger, command(verb, number, believes, percent=percent))
        except RolloutError:
            assert ledger is before
            continue
        assert len(in_state(ledger, RolloutState.ACTIVE)) <= 1
        assert sum(each.state in ON_TRIAL for each in ledger.rollouts.values()) <= 1
        assert ledger.active or not had_active, "what serves is only ever replaced"
        assert subject == ledger.rollout(subject.revision)
        for each in ledger.rollouts.values():
            was = before.rollouts.get(each.revision)
            if each.state in LOADED and (was is None or was.state not in LOADED):
                assert verb is Verb.WARM or each.state is RolloutState.ACTIVE
