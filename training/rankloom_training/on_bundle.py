"""What training an expert on top of a finished bundle needs: its decoder, and windows of a log."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from rankloom_engine.decoder_files import load_decoder_model, read_config
from rankloom_engine.loading import Hardware, move
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.data import Dataset
from rankloom_training.machine import CPU, Machine
from rankloom_training.scoring import requests_of
from rankloom_training.visibility import View
from rankloom_training.windows import Inputs, Window, WindowMaker


def decoder_of(loaded: LoadedBundle, machine: Machine = CPU) -> Decoder:
    """The bundle's base model and projector on that machine, without experts."""
    parts = loaded.engine_parts()
    model = load_decoder_model(read_config(parts.config.read()), parts.weights.pieces())
    hidden = cast("Any", model).get_input_embeddings().embedding_dim
    projector = Projector.from_bytes(parts.projector.read(), hidden)
    move(model, Hardware(machine.device, machine.dtype))
    projector.to(machine.device)
    return Decoder(model, projector, yes=parts.format.liked, no=parts.format.disliked)


def windows_of(loaded: LoadedBundle, data: Dataset, view: View) -> list[Window]:
    """Windows over the view's rows, with the features and tree logits that the bundle serves.

    The items of ``data`` must be the bundle's, in its order.
    """
    requests = requests_of(data, view)
    found = [loaded.provider.features(each.query()) for each in requests]
    num = [len(each.rows) for each in requests]
    tabular = np.concatenate([each.tabular for each in found])
    vector = np.repeat([each.vector for each in found], num, axis=0)
    inputs = Inputs(view, vector, tabular, loaded.trees.logits(tabular))
    return WindowMaker(data.log, data.catalogue, loaded.prompts).windows(inputs)
