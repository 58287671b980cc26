"""What training an expert on top of a finished bundle needs: its decoder, and windows of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True, eq=False)
class ServedRows:
    """Rows of a log as a bundle would serve them.

    ``routing``: (rows, dim) what the router compares with its centroids.
    """

    inputs: Inputs
    routing: NDArray[np.floating]

    @classmethod
    def of(cls, loaded: LoadedBundle, data: Dataset, view: View) -> ServedRows:
        """The view's rows, with the features and tree logits that the bundle serves."""
        requests = requests_of(data, view)
        found = [loaded.provider.features(each.query()) for each in requests]
        num = [len(each.rows) for each in requests]
        tabular = np.concatenate([each.tabular for each in found])
        vector = np.repeat([each.vector for each in found], num, axis=0)
        routing = np.repeat([loaded.routing_vector(each) for each in found], num, axis=0)
        return cls(Inputs(view, vector, tabular, loaded.trees.logits(tabular)), routing)


def windows_over(loaded: LoadedBundle, data: Dataset, inputs: Inputs) -> list[Window]:
    """Windows of the bundle's prompts. The items of ``data`` must be the bundle's, in its order."""
    return WindowMaker(data.log, data.catalogue, loaded.prompts).windows(inputs)


def windows_of(loaded: LoadedBundle, data: Dataset, view: View) -> list[Window]:
    """Windows over the view's rows, with the features and tree logits that the bundle serves.

    The items of ``data`` must be the bundle's, in its order.
    """
    return windows_over(loaded, data, ServedRows.of(loaded, data, view).inputs)
