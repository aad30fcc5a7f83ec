"""Models by name, with seeded initial weights, and pretrained weights from a file."""

from flop_p2p.models.normalization import replace_batch_norm
from flop_p2p.models.registry import build_model, default_model
from flop_p2p.models.weights import load_weights

__all__ = ["build_model", "default_model", "load_weights", "replace_batch_norm"]
