"""The split into a shared body and a private head, and the contiguous vectors behind them."""

from flop_p2p.partial.mixing import mix, mix_rows
from flop_p2p.partial.saved import save_model
from flop_p2p.partial.schema import Schema, TensorSpec
from flop_p2p.partial.split import Split, share_everything, split_model
from flop_p2p.partial.vector import Binding, bind, flatten

__all__ = [
    "Binding",
    "Schema",
    "Split",
    "TensorSpec",
    "bind",
    "flatten",
    "mix",
    "mix_rows",
    "save_model",
    "share_everything",
    "split_model",
]
