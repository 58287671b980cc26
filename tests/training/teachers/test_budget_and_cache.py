"""A budget is never exceeded, and no question is paid for twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankloom_training.data import DataError
from rankloom_training.teachers.answer_cache import CachedChat
from rankloom_training.teachers.budget import BudgetedChat
from rankloom_training.teachers.chat import Completion, user
from rankloom_training.teachers.teacher import TeacherError
from training.teachers.scripted_chat import WRITTEN, ScriptedChat


def question(number: int) -> list[dict[str, str]]:
    return [dict(user(f"Question {number}?"))]


def test_calls_are_limited_though_threads_ask_together() -> None:
    chat = ScriptedChat(lambda _: "Yes.")
    budgeted = BudgetedChat(chat, max_calls=5, max_tokens=None)

    def spent(number: int) -> bool:
        try:
            budgeted.complete(question(number), 10)
        except TeacherError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spent, range(20))) == 15
    assert len(chat.asked) == 5
    with pytest.raises(TeacherError, match="the budget of 5 calls is spent; raise --max-calls"):
        budgeted.complete(question(20), 10)


def test_tokens_are_reserved_before_and_counted_after_a_call() -> None:
    chat = ScriptedChat(lambda _: "Yes.")  # 40 tokens each
    budgeted = BudgetedChat(chat, max_calls=None, max_tokens=200)
    for number in range(3):
        budgeted.complete(question(number), 60)
    with pytest.raises(TeacherError, match="the budget of 200 tokens is spent"):
        budgeted.complete(question(3), 80)
    budgeted.complete(question(4), 60)
    assert len(chat.asked) == 4


def test_a_call_that_failed_gives_its_tokens_back() -> None:
    def fail(_: object) -> str:
        raise TeacherError("down; see to it")

    budgeted = BudgetedChat(ScriptedChat(fail), max_calls=None, max_tokens=100)
    for number in range(5):
        with pytest.raises(TeacherError, match="down"):
            budgeted.complete(question(number), 60)


def test_an_answer_is_kept_over_runs(tmp_path: Path) -> None:
    answers = iter(["Yes. First.", "No. Second."])
    chat = ScriptedChat(lambda _: Completion(next(answers), True, 7, WRITTEN))
    cached = CachedChat(chat, tmp_path / "deep" / "answers")
    first = cached.complete(question(1), 10)
    cached.close()
    again = CachedChat(chat, tmp_path / "deep" / "answers")
    assert again.complete(question(1), 10) == first == Completion("Yes. First.", True, 7, WRITTEN)
    assert again.complete(question(1), 20).text == "No. Second."
    assert len(chat.asked) == 2
    again.close()


def test_another_model_has_its_own_answers(tmp_path: Path) -> None:
    chat, other = ScriptedChat(lambda _: "Yes."), ScriptedChat(lambda _: "No.")
    other.name = "other"
    for each, text in ((chat, "Yes."), (other, "No.")):
        cached = CachedChat(each, tmp_path / "answers")
        assert cached.complete(question(1), 10).text == text
        cached.close()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("years of work, more than a hundred bytes of them " * 10)
    with pytest.raises(DataError, match="is not a file of answers; move it away"):
        CachedChat(ScriptedChat(lambda _: "Yes."), tmp_path / "answers")
