"""How to train: what the commands and the callers of ``train_bundle`` choose.

The annotations bound what ``option_file`` accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from rankloom_features.models import MODEL_NAMES
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.group_counts import MAX_GROUPS, MIN_GROUPS, Clustering
from rankloom_training.reasons.trace import TraceKind
from rankloom_training.visibility import Protocol

MAX_SEED = 2**32 - 1  # the largest seed that NumPy takes
MAX_ROWS = 10**12
MAX_EPOCHS = 1000


def _as_number(value: object) -> object:
    """YAML takes 5e-4 for a text."""
    return float(value) if isinstance(value, str) else value


def _as_sampling(value: object) -> object:
    if value is None or isinstance(value, NegativeSampling):
        return value
    try:
        return NegativeSampling.of_text(str(value))
    except ValueError as error:
        raise ValueError("must be N or N:BY, such as 4 or 4:popularity") from error


def _as_text(sampling: NegativeSampling | None) -> str | None:
    return f"{sampling.per_like}:{sampling.by}" if sampling else None


def _known_model(name: str) -> str:
    if name not in MODEL_NAMES:
        raise ValueError(f"must be one of {', '.join(MODEL_NAMES)}")
    return name


Number = Annotated[float, BeforeValidator(_as_number), Field(strict=True, allow_inf_nan=False)]
Sampling = Annotated[
    NegativeSampling | None, BeforeValidator(_as_sampling), PlainSerializer(_as_text)
]
GroupCount = Annotated[int, Field(strict=True, ge=MIN_GROUPS, le=MAX_GROUPS)]
Epochs = Annotated[int, Field(strict=True, ge=1, le=MAX_EPOCHS)]


class RecipeName(StrEnum):
    """A set of defaults, after the paper that it follows."""

    THINKREC = "thinkrec"
    REASONINGREC = "reasoningrec"


class ObjectiveName(StrEnum):
    """MIXED: log-loss of the verdict and, where there are words, tokens (ThinkRec, equation 7).
    COMPLETION: tokens of verdict and words alone, of rows that have words (ReasoningRec).
    """

    MIXED = "mixed"
    COMPLETION = "completion"


class ItemTextKind(StrEnum):
    """Which of an item's short texts a prompt has behind its title and labels."""

    NONE = "none"
    KEYWORDS = "keywords"
    DESCRIPTION = "description"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of one training.

    ``pairwise``: weight of the loss over a window's pairs. ``depth``: the share of the layers, the
    last ones, that are trained.
    """

    epochs: Epochs
    learning_rate: Annotated[Number, Field(gt=0.0)]
    pairwise: Annotated[Number, Field(ge=0.0)] = 0.3
    weight_decay: Annotated[Number, Field(ge=0.0)] = 0.01
    depth: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    objective: ObjectiveName = ObjectiveName.MIXED


GLOBAL_RECIPE = Recipe(epochs=1, learning_rate=5e-4)
GROUP_RECIPE = Recipe(epochs=2, learning_rate=2e-3, pairwise=0.1)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    ``base``: a local path or hub id of a causal LM; None trains the embedded decoder.
    ``num_groups``: of users; "auto": chosen on validation rows, see ``grouping.choice``.
    ``group_by``: a category of the item table whose values are the groups; None: ``num_groups``
    clusters of users. ``group_experts``: whether each group gets an expert of its own; if not, all
    have copies of the global one. ``lm_rows``: how many training rows the language model sees at
    most, all rows of some users.
    ``traces``: a file of traces to learn words from; None: the evidence teacher writes about
    ``trace_share`` of the rows that the language model sees (ThinkRec: 0.2); 0: no words.
    ``trace_kind``: what it writes. ``shots``: each expert learns from so many rows with a text,
    as many likes as dislikes (ReasoningRec's K); None: from all rows. ``item_texts``: which
    short texts of the items prompts have. ``profiles``: prompts say what the user thought of
    things before the prompt's events.
    ``like_above``: a rating above it is a like; None: as the data says. ``implicit``: how
    to sample negatives for a log of likes alone; None: as the data says. ``max_exact_items``:
    a larger catalogue is searched approximately. ``review_encoder``: a folder that
    `rankloom reccot encode` wrote: what towers predict from the log's reviews is a feature; None:
    reviews are not read.
    """

    recipe: RecipeName = RecipeName.THINKREC
    protocol: Protocol = Protocol.P1
    collaborative: Annotated[str, AfterValidator(_known_model)] = "mf"
    base: str | None = None
    num_groups: GroupCount | Literal["auto"] = 3
    clustering: Clustering = Clustering.KMEANS
    group_by: Annotated[str, Field(min_length=1)] | None = None
    group_experts: Annotated[bool, Field(strict=True)] = True
    base_epochs: Epochs = 2
    global_recipe: Recipe = GLOBAL_RECIPE
    group_recipe: Recipe = GROUP_RECIPE
    lm_rows: Annotated[int, Field(strict=True, ge=1, le=MAX_ROWS)] = 20_000
    traces: str | None = None
    trace_share: Annotated[Number, Field(ge=0.0, le=1.0)] = 0.2
    trace_kind: TraceKind = TraceKind.THINK
    shots: Annotated[int, Field(strict=True, ge=2, le=MAX_ROWS)] | None = None
    item_texts: ItemTextKind = ItemTextKind.NONE
    profiles: Annotated[bool, Field(strict=True)] = False
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] = 0
    like_above: Number | None = None
    implicit: Sampling = None
    max_exact_items: Annotated[int, Field(strict=True, ge=0)] = 1_000_000
    review_encoder: str | None = None

    @property
    def has_texts(self) -> bool:
        """Whether there is something to learn words from."""
        return self.traces is not None or self.trace_share > 0.0

    @property
    def learns_texts_alone(self) -> bool:
        """Whether rows without a text teach nothing."""
        objectives = {self.global_recipe.objective, self.group_recipe.objective}
        return self.shots is not None or ObjectiveName.COMPLETION in objectives

    @property
    def whole(self) -> TrainOptions:
        """All of them, for the stage that writes them into the bundle."""
        return self


_COMPLETION = Recipe(10, 5e-4, pairwise=0.0, objective=ObjectiveName.COMPLETION)
# Recipe → its options, before anything else is asked for.
DEFAULTS: Mapping[str, TrainOptions] = {
    RecipeName.THINKREC: TrainOptions(),
    RecipeName.REASONINGREC: TrainOptions(
        RecipeName.REASONINGREC,
        global_recipe=_COMPLETION,
        group_recipe=_COMPLETION,
        trace_kind=TraceKind.RATIONALE,
        shots=256,
        item_texts=ItemTextKind.DESCRIPTION,
        profiles=True,
    ),
}
# Someone waits for it. Groups need their second epoch: after the first, none has an expert.
DEMO_OPTIONS = TrainOptions(base_epochs=1, trace_share=0.05)
