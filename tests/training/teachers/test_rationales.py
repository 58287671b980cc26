"""ReasoningRec's rationales: two bounded parts, a profile from before the window, no leak."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from rankloom_training.data import Dataset
from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.grounding import named_items
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.rationale import MAX_WORDS, read_rationale
from rankloom_training.reasons.text_check import TextCheck
from rankloom_training.reasons.trace import TraceKind
from rankloom_training.teachers.chat import Completion, Message
from rankloom_training.teachers.chat_rationale import MAX_REPAIRS, ChatRationales
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.teachers.evidence_rationale import EvidenceRationales
from rankloom_training.teachers.profile import write_profile
from rankloom_training.traces.cases import MAX_EVENTS, PROFILE_EVENTS, CaseMaker, CaseOptions
from training.logs import random_log
from training.reasons.random_cases import CATALOGUE, random_case
from training.teachers.scripted_chat import WRITTEN, ScriptedChat
from training.traces.test_make import CountingInfluences

EARLIER = tuple((item, at % 3 > 0) for at, item in enumerate(CATALOGUE.items[:15]))
CASE = dataclasses.replace(random_case(4), earlier=EARLIER, liked=False)
CITED = CASE.events[0].item.title
GOOD = f'Summary: You like a lot.\nReasons: It is unlike "{CITED}".'
PROFILE = f'Likes "{EARLIER[1][0].title}" and the like.'
CHECK = TextCheck(CATALOGUE)


def answering(rationale: str, profile: str = PROFILE) -> ScriptedChat:
    def answer(messages: Sequence[Message]) -> str:
        return profile if "Describe" in messages[0]["content"] else rationale

    return ScriptedChat(answer)


def rationale_prompt_of(chat: ScriptedChat) -> str:
    return chat.asked[-1][0][1]["content"]


def test_an_answer_must_be_two_lines() -> None:
    found = read_rationale(f" {GOOD}\n")
    assert found is not None
    assert found.text == f'You like a lot.\nIt is unlike "{CITED}".'
    for wrong in ("", "Reasons: so.", "Yes. Summary: a\nReasons: b", f"{GOOD}\nNote: c"):
        assert read_rationale(wrong) is None


def test_the_label_is_in_the_prompt_and_kept_apart_from_the_text() -> None:
    chat = answering(GOOD)
    trace = ChatRationales(chat, CHECK).trace(CASE)
    assert (trace.kind, trace.verdict, trace.problem) == (TraceKind.RATIONALE, False, None)
    assert (trace.blind_verdict, trace.profile) == (None, PROFILE)
    assert "will DISLIKE the item" in rationale_prompt_of(chat)
    assert PROFILE in rationale_prompt_of(chat)
    assert not trace.text.startswith(("Yes", "No"))


@pytest.mark.parametrize(
    "profile", ["", f'Likes "{CASE.candidate.title}".', "so " * (MAX_WORDS + 1)]
)
def test_an_unusable_profile_is_left_out(profile: str) -> None:
    chat = answering(GOOD, profile)
    trace = ChatRationales(chat, CHECK).trace(CASE)
    assert (trace.profile, trace.problem) == ("", None)
    assert "About the person" not in rationale_prompt_of(chat)


def test_without_earlier_events_no_profile_is_asked_for() -> None:
    chat = answering(GOOD)
    trace = ChatRationales(chat, CHECK).trace(dataclasses.replace(CASE, earlier=()))
    assert (trace.profile, len(chat.asked)) == ("", 1)


WRONG = {
    "No. You will not.": TraceProblem.OTHER_FORM,
    f'Summary: {"so " * (MAX_WORDS + 1)}\nReasons: "{CITED}".': TraceProblem.WORDY,
    'Summary: You like a lot.\nReasons: Like "A Dream".': TraceProblem.INVENTED_TITLE,
    "Summary: You like a lot.\nReasons: It is so.": TraceProblem.NO_EVENT,
}


@pytest.mark.parametrize(("answer", "problem"), WRONG.items())
def test_a_wrong_answer_is_left_after_bounded_repairs(answer: str, problem: TraceProblem) -> None:
    chat = answering(answer)
    trace = ChatRationales(chat, CHECK).trace(dataclasses.replace(CASE, earlier=()))
    assert (trace.problem, trace.attempts) == (problem, 1 + MAX_REPAIRS)
    assert len(chat.asked) == 1 + MAX_REPAIRS


def test_an_answer_that_was_cut_is_left_however_it_reads() -> None:
    chat = ScriptedChat(lambda _: Completion(GOOD, True, 9, WRITTEN))
    trace = ChatRationales(chat, CHECK).trace(dataclasses.replace(CASE, earlier=()))
    assert (trace.problem, trace.attempts) == (TraceProblem.UNFINISHED, 1 + MAX_REPAIRS)


def test_the_evidence_teacher_writes_rationales_too() -> None:
    for seed in range(200):
        case = dataclasses.replace(random_case(seed), earlier=EARLIER)
        trace = EvidenceRationales().trace(case)
        parts = trace.text.split("\n")
        assert len(parts) == 2
        assert max(len(part.split()) for part in (*parts, trace.profile)) <= MAX_WORDS
        events = [each.item for each in case.events]
        assert CHECK.problem(trace.text, events, case.candidate) is None
        assert not CHECK.names_other(trace.profile, [item for item, _ in EARLIER])


def test_what_is_served_names_cited_events_and_labels_that_a_server_allows() -> None:
    labelled = 0
    for seed in range(200):
        case = random_case(seed)
        text = EvidenceRationales(cited_only=True).trace(case).text
        reasons = EvidenceTeacher(cited_only=True).trace(case).text
        if not text:
            continue
        summary = text.removesuffix(reasons)
        cited = named_items(reasons, [each.item for each in case.events])
        assert '"' not in summary
        allowed = {label for item in (*cited, case.candidate) for label in item.attributes}
        named = {label for item in CATALOGUE.items for label in item.attributes if label in summary}
        assert named <= allowed
        labelled += bool(named)
    assert labelled > 20


def test_a_profile_says_what_the_opinions_prove() -> None:
    space = [item for item in CATALOGUE.items if set(item.attributes) == {"Space"}][:3]
    heist = [item for item in CATALOGUE.items if set(item.attributes) == {"Heist"}][:3]
    opinions = [*((item, True) for item in space), *((item, False) for item in heist)]
    for seed in range(20):
        text = write_profile(opinions, seed)
        _, loved, avoided, likes, dislikes = text.split(". ")
        assert "Space" in loved
        assert "Heist" in avoided
        assert f'"{space[1].title}" and "{space[2].title}"' in likes
        assert f'"{heist[1].title}" and "{heist[2].title}"' in dislikes
    assert write_profile((), 0) == ""


def test_profiles_are_of_events_strictly_before_the_window() -> None:
    log = random_log(11, num_items=200, mean_rows=60)
    maker = CaseMaker(log, CountingInfluences(), CaseOptions(rows=10_000))
    cases = list(maker.cases())
    assert any(case.earlier for case in cases)
    for case in cases:
        start = int(log.log.start[log.log.user[case.row]])
        first_of_window = max(case.row - MAX_EVENTS, start)
        before = [log.catalogue.items[int(at)] for at in log.log.item[start:first_of_window]]
        assert len(case.earlier) <= PROFILE_EVENTS
        shown = [item for item, _ in case.earlier]
        assert shown == before[: len(before) // 10 * 10][-PROFILE_EVENTS:]
        assert [liked for _, liked in case.earlier] == _opinions(log, case, len(shown))


def _opinions(log: Dataset, case: TraceCase, num: int) -> list[bool]:
    """Those of the last ``num`` events before the window, in whole steps of ten."""
    start = int(log.log.start[log.log.user[case.row]])
    end = start + max(case.row - MAX_EVENTS - start, 0) // 10 * 10
    return [bool(liked) for liked in log.log.liked[end - num : end]]
