"""ReasoningRec's rationales by a language model: a profile first, then two parts for the label."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.rationale import MAX_WORDS, read_rationale
from rankloom_training.reasons.text_check import TextCheck
from rankloom_training.reasons.trace import Trace, TraceKind
from rankloom_training.teachers.chat import (
    ChatModel,
    Completion,
    Message,
    PromptRefusedError,
    assistant,
    digest_of_prompt,
    system,
    user,
)
from rankloom_training.teachers.think_prompts import (
    NO_TEXTS,
    Texts,
    events_text,
    history_text,
    item_line,
)

MAX_REPAIRS = 2
ANSWER_TOKENS = 1024
_PROFILE = (
    f"Describe in at most {MAX_WORDS} words, on one line, what this person likes and dislikes in "
    "items. Name no titles but those given, each exactly and between double quotes."
)
_RATIONALE = (
    "Answer with exactly two lines. The first: 'Summary: ' and what the person has liked and "
    "disliked so far. The second: 'Reasons: ' and why the person will like or dislike the item, "
    f"citing at least one title from the list. Each at most {MAX_WORDS} words, to the person, as "
    "'you'. Write titles exactly, between double quotes; name no others, and no facts that are "
    "not given here."
)


@dataclass(frozen=True, slots=True)
class RationaleAnswer:
    """``text``: both parts, or what came instead."""

    text: str
    digest: str
    written: datetime
    problem: TraceProblem | None


class ChatRationales:
    """Asks with the label, as ReasoningRec does, and up to MAX_REPAIRS times anew."""

    def __init__(self, chat: ChatModel, check: TextCheck, texts: Texts = NO_TEXTS) -> None:
        self._chat, self._check, self._texts = chat, check, texts

    @property
    def name(self) -> str:
        return self._chat.name

    def trace(self, case: TraceCase) -> Trace:
        """Raises TeacherError."""
        profile = self.profile(case)
        prompt = rationale_prompt(case, profile, self._texts)
        answer, attempts = self._ask(case, prompt), 1
        while _repairable(answer.problem) and attempts <= MAX_REPAIRS:
            fault = user(f"Your answer {answer.problem}. Write both lines anew.")
            answer = self._ask(case, (*prompt, assistant(answer.text), fault))
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
            kind=TraceKind.RATIONALE,
            attempts=attempts,
            profile=profile,
            problem=answer.problem,
        )

    def profile(self, case: TraceCase) -> str:
        """From the events before the prompt's; empty without any, or if the answer is unusable."""
        if not case.earlier:
            return ""
        prompt = (system(_PROFILE), user(events_text(case.earlier, self._texts)))
        answer = self._complete(prompt)
        text = "" if answer is None or answer.truncated else " ".join(answer.text.split())
        names_other = self._check.names_other(text, [item for item, _ in case.earlier])
        return "" if names_other or len(text.split()) > MAX_WORDS else text

    def _ask(self, case: TraceCase, prompt: tuple[Message, ...]) -> RationaleAnswer:
        digest, completion = (
            digest_of_prompt(self.name, prompt, ANSWER_TOKENS),
            self._complete(prompt),
        )
        if completion is None:
            return RationaleAnswer("", digest, datetime.now(UTC), TraceProblem.REFUSED)
        if (parts := read_rationale(completion.text)) is None:
            form = TraceProblem.UNFINISHED if completion.truncated else TraceProblem.OTHER_FORM
            return RationaleAnswer(completion.text, digest, completion.written, form)
        events = [each.item for each in case.events]
        cut = TraceProblem.UNFINISHED if completion.truncated else None
        problem = cut or parts.problem or self._check.problem(parts.text, events, case.candidate)
        return RationaleAnswer(parts.text, digest, completion.written, problem)

    def _complete(self, prompt: tuple[Message, ...]) -> Completion | None:
        try:
            return self._chat.complete(prompt, ANSWER_TOKENS)
        except PromptRefusedError:
            return None


def rationale_prompt(case: TraceCase, profile: str, texts: Texts = NO_TEXTS) -> tuple[Message, ...]:
    """Profile if there is one, history, candidate and label."""
    verb = "LIKE" if case.liked else "DISLIKE"
    parts = [f"About the person: {profile}"] if profile else []
    parts += [history_text(case, texts), f"The item: {item_line(case.candidate, texts)}"]
    parts.append(f"We know that the person will {verb} the item.")
    return (system(_RATIONALE), user("\n\n".join(parts)))


def _repairable(problem: TraceProblem | None) -> bool:
    return problem not in (None, TraceProblem.REFUSED)
