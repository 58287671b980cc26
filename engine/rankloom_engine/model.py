"""Any Hugging Face decoder as a verdict model: packed batch in, Yes − No margins out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from rankloom_engine.errors import ModelError
from rankloom_engine.packing import PackedBatch, Segment, collate, pack

if TYPE_CHECKING:
    from rankloom_engine.mixture import Mixture
    from rankloom_engine.projector import Projector

# Packed and plain scoring may differ by float rounding only, whatever the architecture.
SELF_CHECK_TOLERANCE = 1e-3
SELF_CHECK_SEED = 20


class Decoder:
    """A causal language model, its soft-token projector and its two verdict tokens.

    Not thread-safe: one thread runs the model.
    """

    def __init__(self, model: nn.Module, projector: Projector, *, yes: int, no: int) -> None:
        self.model = model
        self.projector = projector
        self.mixture: Mixture | None = None
        self._verdicts = torch.tensor([yes, no])

    def _hidden(self, batch: PackedBatch) -> Tensor:
        """(rows, length, hidden) last states of a packed batch."""
        body = cast("Any", self.model).base_model
        return cast(
            "Tensor",
            body(
                inputs_embeds=self._embeddings(batch),
                attention_mask=attention_mask(batch),
                position_ids=torch.from_numpy(batch.position),
                use_cache=False,
            ).last_hidden_state,
        )

    def margins(self, batch: PackedBatch) -> Tensor:
        """(verdicts,) Yes − No logits, in the batch's order of rows and candidates."""
        states = self._hidden(batch)
        row, place = torch.from_numpy(batch.verdict_at).unbind(dim=1)
        head = cast("Any", self.model).get_output_embeddings()
        # Two rows of the head instead of the whole vocabulary.
        logits: Tensor = states[row, place] @ head.weight[self._verdicts].T
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias[self._verdicts]
        return (logits[:, 0] - logits[:, 1]).float()

    def mixed_margins(self, batch: PackedBatch, weights: Tensor) -> Tensor:
        """Margins with one row of expert weights (rows, K) per sequence."""
        if self.mixture is None:
            raise ModelError("the decoder has no experts")
        with self.mixture.weighted(weights):
            return self.margins(batch)

    def _embeddings(self, batch: PackedBatch) -> Tensor:
        table = cast("Any", self.model).get_input_embeddings()
        embedded: Tensor = table(torch.from_numpy(batch.ids))
        embedded = _fill(embedded, batch.latent_at, batch.latent, self.projector.of_latent)
        return _fill(embedded, batch.tabular_at, batch.tabular, self.projector.of_tabular)


def attention_mask(batch: PackedBatch) -> Tensor:
    """(rows, 1, length, length) float: 0 where a token may look, else the lowest float.

    Causal; candidates see the prefix up to their limit and themselves; padding sees
    only itself, so that its softmax has a value.
    """
    block, visible = torch.from_numpy(batch.block), torch.from_numpy(batch.visible)
    place = torch.arange(block.shape[1])
    same = block[:, :, None] == block[:, None, :]
    prefix = (block == 0)[:, None, :] & (place[None, None, :] < visible[:, :, None])
    causal = place[None, :, None] >= place[None, None, :]
    own = place[None, :, None] == place[None, None, :]
    real = (block >= 0)[:, :, None] & (block >= 0)[:, None, :]
    allowed = (causal & (same | prefix) & real) | own
    mask = torch.full(allowed.shape, torch.finfo(torch.float32).min)
    return mask.masked_fill_(allowed, 0.0)[:, None]


def load_decoder_model(config: bytes, weights: bytes) -> nn.Module:
    """A causal LM from the bytes of its two files, in evaluation mode. Raises ModelError.

    Nothing is fetched and no code of the model's own is run.
    """
    try:
        fields = json.loads(config)
        if fields.get("auto_map"):
            raise ModelError("base: its config asks for code of its own (auto_map)")
        settings = AutoConfig.for_model(fields.pop("model_type"), **fields)
        model = AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa")
        state = safetensors.torch.load(weights)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except ModelError:
        raise
    except Exception as error:  # transformers raises many kinds for a bad config
        raise ModelError("base: config and weights make no causal language model") from error
    model.tie_weights()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise ModelError("base: the weights do not match the config")
    return cast("nn.Module", model.float().eval())


@torch.inference_mode()
def self_check(model: nn.Module, vocabulary: int) -> None:
    """Compares packed with plain scoring on random tokens. Raises ModelError by name.

    A wrong mask raises nothing by itself: sliding windows and position biases would
    only make scores silently wrong.
    """
    random = torch.Generator().manual_seed(SELF_CHECK_SEED)
    drawn = torch.randint(0, vocabulary, (56,), generator=random).tolist()
    prefix, candidates = drawn[:32], [drawn[32:37], drawn[37:46], drawn[46:]]
    name = type(model).__name__
    row = pack(Segment.of_ids(prefix), [Segment.of_ids(ids) for ids in candidates])
    batch = collate([row])
    any_model = cast("Any", model)
    try:
        packed = any_model(
            input_ids=torch.from_numpy(batch.ids),
            attention_mask=attention_mask(batch),
            position_ids=torch.from_numpy(batch.position),
            use_cache=False,
        ).logits[0, torch.from_numpy(row.verdict_at)]
        plain = [any_model(torch.tensor([prefix + ids])).logits[0, -1] for ids in candidates]
    except Exception as error:  # architectures refuse such a mask each in their own way
        raise ModelError(f"base: {name} cannot be scored in packed form") from error
    difference = float((packed - torch.stack(plain)).abs().max())
    if not difference <= SELF_CHECK_TOLERANCE:
        raise ModelError(
            f"base: {name} scores differently in packed form (by {difference:.3g}); "
            f"its attention needs more than a mask and positions"
        )


def _fill(embedded: Tensor, places: Any, vectors: Any, project: Any) -> Tensor:  # noqa: ANN401
    """Writes projected vectors over the soft places (row, place)."""
    if not len(places):
        return embedded
    row, place = torch.from_numpy(places).unbind(dim=1)
    return embedded.index_put((row, place), project(torch.from_numpy(vectors)).to(embedded.dtype))
