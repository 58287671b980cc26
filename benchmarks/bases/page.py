"""docs/base-models.md: which families work, and why others do not."""

from __future__ import annotations

import re
from collections.abc import Sequence

import transformers

from benchmarks.bases.exam import NUM_POSITIONS, NUM_TOKENS, FamilyResult
from benchmarks.bases.guard import Outcome

_OWN_ATTENTION = re.compile(r"\d+ of \d+ have another kind \((?P<classes>.*)\)")
_HEAD = """# Base models

`rankloom train --base MODEL` takes a causal language model of transformers by its path or hub id.
Its architecture is checked before anything is trained, and again when a bundle is loaded: packed
scores must be the scores of plain prompts, with several rows in a pass, soft tokens, experts on all
linear layers, cached prefixes, and prompts beyond a window. A model that fails is refused in one
line with the cause. Of a model of text and images, the part for text is used. In the bundle the
weights keep their number format; a server loads them in the one that it serves with.

The check is made on a small model with the same code and settings, in float32. Some limits depend
on how long prompts can be: learned positions, rotary scaling that follows the longest prompt of a
pass, windows that masks alone know. With fewer events in a prompt, such a model may do.

`python -m benchmarks.bases` writes this page. It makes a small model of every type of causal
language model in transformers {version}, from the type's default settings, and of {variants}
variants of them. After the check, the margins of each are compared once more with the library's own
forward, on the way that a server goes; the error is a share of the largest margin. Prompts take up
to {tokens:,} tokens, and {positions:,} with an explanation.

| families | {all} |
|---|---|
| work | {work} |
| are refused with a cause | {refused} |
| score wrongly | {wrong} |
| end in another way | {failed} |
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The page's text."""
    verdicts = [outcome.verdict for outcome in outcomes if outcome.verdict]
    work = [v for v in verdicts if v.cause is None and not v.is_wrong]
    refused = [v for v in verdicts if v.cause is not None]
    head = _HEAD.format(
        version=transformers.__version__,
        variants=sum("," in outcome.family for outcome in outcomes),
        tokens=NUM_TOKENS,
        positions=NUM_POSITIONS,
        all=len(outcomes),
        work=len(work),
        refused=len(refused),
        wrong=sum(v.is_wrong for v in verdicts),
        failed=len(outcomes) - len(verdicts),
    )
    causes: dict[str, list[str]] = {}
    for result in refused:
        cause, family = _grouped(result)
        causes.setdefault(cause, []).append(family)
    return "\n".join(
        [
            head,
            "## Families that work",
            "",
            "| family | error |",
            "|---|---|",
            *(f"| {v.family} | {v.error:.0e} |" for v in work),
            "",
            "## Families that are refused",
            "",
            "| cause | families |",
            "|---|---|",
            *(f"| {cause} | {'; '.join(families)} |" for cause, families in sorted(causes.items())),
            "",
        ]
    )


def _grouped(result: FamilyResult) -> tuple[str, str]:
    """A cause as several families have it, and the family with what is its own in the cause."""
    cause = re.sub(r"by [-+.e\d]+ of the largest, ", "", (result.cause or "").partition("; ")[0])
    own = _OWN_ATTENTION.search(cause)
    if own is None:
        return cause, result.family
    return cause.replace(own[0], "not all have it"), f"{result.family} ({own['classes']})"
