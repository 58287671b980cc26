"""A teacher that asks a language model, and believes nothing that it has not checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.text_check import TextCheck
from rankloom_training.reasons.trace import Trace
from rankloom_training.reasons.verdicts import split_verdict
from rankloom_training.teachers.chat import (
    ChatModel,
    Completion,
    Message,
    PromptRefusedError,
    digest_of_prompt,
)
from rankloom_training.teachers.think_prompts import (
    NO_TEXTS,
    Texts,
    hinted_prompt,
    think_prompt,
)

MAX_REPAIRS = 3
ANSWER_TOKENS = (1024, 2048, 3000)  # thinking models need many; the next is tried if one is cut


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """``raw``: as it came. ``digest``: of the prompt. ``problem``: why it cannot be used."""

    raw: str
    verdict: bool | None
    text: str
    digest: str
    written: datetime
    problem: TraceProblem | None


class ChatTeacher:
    """Asks without the label first; then, up to MAX_REPAIRS times, with hints that hold it."""

    def __init__(self, chat: ChatModel, check: TextCheck, texts: Texts = NO_TEXTS) -> None:
        self._chat, self._check, self._texts = chat, check, texts

    @property
    def name(self) -> str:
        return self._chat.name

    def trace(self, case: TraceCase) -> Trace:
        prompt = think_prompt(case, self._texts)
        first = answer = self._ask(case, prompt)
        attempts = 1
        while (fault := _repairable(answer)) and attempts <= MAX_REPAIRS:
            hinted = hinted_prompt(prompt, case.liked, answer.raw, fault, attempts)
            answer = self._ask(case, hinted)
            attempts += 1
        return Trace(
            row=case.row,
            item_id=case.candidate.item_id,
            verdict=case.liked,
            text=answer.text,
            teacher=self.name,
            prompt_digest=answer.digest,
            written=answer.written,
            events=case.trace_events,
            attempts=attempts,
            blind_verdict=first.verdict,
            blind_text=first.text,
            problem=answer.problem,
        )

    def _ask(self, case: TraceCase, prompt: Sequence[Message]) -> ChatAnswer:
        """One answer, with more tokens while they run out."""
        completion, digest = None, ""
        for max_tokens in ANSWER_TOKENS:
            digest = digest_of_prompt(self.name, prompt, max_tokens)
            try:
                completion = self._chat.complete(prompt, max_tokens)
            except PromptRefusedError:
                break
            if not completion.truncated:
                break
        return self._judged(case, completion, digest)

    def _judged(self, case: TraceCase, completion: Completion | None, digest: str) -> ChatAnswer:
        if completion is None:
            now = datetime.now(UTC)
            return ChatAnswer("", None, "", digest, now, TraceProblem.REFUSED)
        verdict, text = split_verdict(completion.text)
        problem = TraceProblem.UNFINISHED if completion.truncated else None
        problem = problem or self._problem(case, verdict, text)
        return ChatAnswer(completion.text, verdict, text, digest, completion.written, problem)

    def _problem(self, case: TraceCase, verdict: bool | None, text: str) -> TraceProblem | None:
        if verdict is None:
            return TraceProblem.NO_VERDICT if text else TraceProblem.NO_TEXT
        if verdict != case.liked:
            return TraceProblem.WRONG_VERDICT
        return self._check.problem(text, [each.item for each in case.events], case.candidate)


def _repairable(answer: ChatAnswer) -> TraceProblem | None:
    """The problem, if another answer may be without it. Nothing helps a prompt that is refused."""
    hopeless = (TraceProblem.REFUSED, TraceProblem.UNFINISHED)
    return None if answer.problem in hopeless else answer.problem
