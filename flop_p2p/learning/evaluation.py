"""The logits of a model on given samples."""

import numpy as np
import torch
from torch import nn

from flop_p2p.learning.samples import Samples

BATCH = 512


def predict(model: nn.Module, samples: Samples, indices: np.ndarray) -> np.ndarray:
    """Logits, float32 ``[len(indices), outputs]``, of ``model`` in evaluation mode."""
    model.eval()
    positions = samples.positions(indices)
    with torch.inference_mode():
        parts = [model(samples.batch(chunk)[0]) for chunk in torch.split(positions, BATCH)]
    result: np.ndarray = torch.cat(parts).cpu().numpy()
    return result
