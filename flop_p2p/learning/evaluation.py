"""The logits of a model on given samples."""

import numpy as np
import torch
from torch import nn

from flop_p2p.errors import TrainingError
from flop_p2p.learning.samples import Samples

BATCH = 512


def predict(model: nn.Module, samples: Samples, indices: np.ndarray) -> np.ndarray:
    """Logits, float32 ``[len(indices), outputs]``, of ``model`` in evaluation mode.

    Raises:
        TrainingError: a logit is NaN or infinite.
    """
    model.eval()
    positions = samples.positions(indices)
    with torch.inference_mode():
        parts = [model(samples.batch(chunk)[0]) for chunk in torch.split(positions, BATCH)]
    result: np.ndarray = torch.cat(parts).cpu().numpy()
    if not np.isfinite(result).all():
        raise TrainingError("the model predicts NaN or infinite values; training diverged, lower --lr")
    return result
