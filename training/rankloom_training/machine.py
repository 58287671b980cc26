"""Where models are trained. It decides about time and memory, and is no part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass


class MachineError(ValueError):
    """There is no such device here."""


@dataclass(frozen=True, slots=True)
class Machine:
    """``device``: as torch names it. ``recompute``: gradient checkpointing, for larger bases."""

    device: str = "cpu"
    recompute: bool = False

    @property
    def dtype(self) -> str:
        """Of a frozen base: on a GPU bfloat16 where it has that. What is trained is float32."""
        # It imports torch, and wrong data is refused before that.
        from rankloom_engine.loading import dtype_on

        return "float32" if self.device == "cpu" else dtype_on(self.device, "auto")

    def check(self) -> None:
        """Raises MachineError."""
        import torch

        try:
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:  # as torch says that there is none
            raise MachineError(
                f"device {self.device}: not to be had here; leave --device out to train on the CPU"
            ) from error


CPU = Machine()
