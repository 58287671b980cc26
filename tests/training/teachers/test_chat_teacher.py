"""A language model as teacher: first without the label, then with hints, never without a check."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from rankloom_training.item_texts.item_text import ItemText
from rankloom_training.reasons.problems import MAX_TEXT_CHARS, TraceProblem
from rankloom_training.reasons.text_check import TextCheck
from rankloom_training.teachers.chat import Completion, Message, PromptRefusedError
from rankloom_training.teachers.chat_teacher import ANSWER_TOKENS, MAX_REPAIRS, ChatTeacher
from training.reasons.random_cases import CATALOGUE, random_case
from training.teachers.scripted_chat import WRITTEN, ScriptedChat

CASE = dataclasses.replace(random_case(4), liked=True)
CITED = CASE.events[0].item.title
GOOD = f'Yes. You liked "{CITED}".'
CHECK = TextCheck(CATALOGUE)


def hinted(messages: Sequence[Message]) -> bool:
    return len(messages) > 2


def answering(*answers: str) -> ScriptedChat:
    """Answers in turn; the last one for good."""
    left = list(answers)
    return ScriptedChat(lambda _: left.pop(0) if len(left) > 1 else left[0])


def test_a_right_first_answer_is_taken() -> None:
    chat = answering(GOOD)
    trace = ChatTeacher(chat, CHECK).trace(CASE)
    assert (trace.verdict, trace.text, trace.problem) == (True, GOOD[5:], None)
    assert (trace.attempts, trace.repaired, trace.blind_verdict) == (1, False, True)
    assert (trace.teacher, trace.written) == ("scripted", WRITTEN)
    assert [(e.item_id, e.liked) for e in trace.events] == [
        (e.item.item_id, e.liked) for e in CASE.events
    ]


def test_the_first_question_is_the_same_whatever_the_label() -> None:
    chat = answering(GOOD)
    for liked in (True, False):
        ChatTeacher(chat, CHECK).trace(dataclasses.replace(CASE, liked=liked))
    first = [messages for messages, _ in chat.asked if not hinted(messages)]
    assert len(first) == 2
    assert first[0] == first[1]


def test_a_wrong_verdict_is_repaired_with_a_hint_and_recorded_apart() -> None:
    chat = answering(f'No. You disliked "{CITED}".', GOOD)
    trace = ChatTeacher(chat, CHECK).trace(CASE)
    assert (trace.attempts, trace.repaired, trace.problem) == (2, True, None)
    assert (trace.blind_verdict, trace.blind_text) == (False, f'You disliked "{CITED}".')
    hint = chat.asked[1][0][-1]["content"]
    assert "The correct answer is Yes" in hint
    assert "overlooked" in hint


WRONG = {
    "Not now. You know it.": TraceProblem.NO_VERDICT,
    "No doubt you will like it.": TraceProblem.NO_VERDICT,
    "": TraceProblem.NO_TEXT,
    "Yes.": TraceProblem.NO_TEXT,
    f'No. You disliked "{CITED}".': TraceProblem.WRONG_VERDICT,
    'Yes. You liked "A Dream of Mine".': TraceProblem.INVENTED_TITLE,
    "Yes. It is good.": TraceProblem.NO_EVENT,
    f'Yes. "{CITED}" {"x" * MAX_TEXT_CHARS}': TraceProblem.TOO_LONG,
}


@pytest.mark.parametrize(("text", "problem"), WRONG.items())
def test_a_teacher_that_goes_on_lying_is_left_after_bounded_repairs(
    text: str, problem: TraceProblem
) -> None:
    chat = answering(text)
    trace = ChatTeacher(chat, CHECK).trace(CASE)
    assert trace.problem is problem
    assert trace.attempts == len(chat.asked) == 1 + MAX_REPAIRS
    assert max(len(messages) for messages, _ in chat.asked) == 4


def test_a_cut_answer_gets_more_tokens_and_then_up() -> None:
    chat = ScriptedChat(lambda _: Completion(GOOD, True, 9, WRITTEN))
    trace = ChatTeacher(chat, CHECK).trace(CASE)
    assert trace.problem is TraceProblem.UNFINISHED
    assert [max_tokens for _, max_tokens in chat.asked] == list(ANSWER_TOKENS)


def test_a_refused_prompt_is_a_refused_row() -> None:
    def refuse(_: Sequence[Message]) -> str:
        raise PromptRefusedError("too long")

    trace = ChatTeacher(ScriptedChat(refuse), CHECK).trace(CASE)
    assert (trace.problem, trace.text, trace.attempts) == (TraceProblem.REFUSED, "", 1)


def test_the_prompt_shows_the_events_and_the_candidate() -> None:
    chat = answering(GOOD)
    ChatTeacher(chat, CHECK).trace(CASE)
    question = chat.asked[0][0][-1]["content"]
    lines = question.splitlines()
    assert f'"{CASE.candidate.title}"' in lines[-1]
    for number, event in enumerate(CASE.events, 1):
        opinion = "liked" if event.liked else "disliked"
        assert lines[number].startswith(f'{number}. {opinion}: "{event.item.title}" (')


def test_the_prompt_has_no_influences() -> None:
    """The teacher argues from texts; the influences judge it afterwards."""
    chat = answering(GOOD)
    ChatTeacher(chat, CHECK).trace(CASE)
    other = dataclasses.replace(
        CASE, events=tuple(dataclasses.replace(each, influence=9.0) for each in CASE.events)
    )
    ChatTeacher(chat, CHECK).trace(other)
    assert chat.asked[0] == chat.asked[1]


def test_item_texts_take_the_place_of_attributes_in_prompts() -> None:
    item = CASE.candidate
    text = ItemText(item.item_id, ("slow burn", "harbour"), "A quiet one.", "large", "", WRITTEN)
    chat = answering(GOOD)
    ChatTeacher(chat, CHECK, {item.item_id: text}).trace(CASE)
    last = chat.asked[0][0][-1]["content"].splitlines()[-1]
    assert last == f'The item: "{item.title}" ({item.year}, slow burn, harbour)'
