"""A trained model on disk."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from flop_p2p.partial.split import Split


def save_model(path: Path, module: nn.Module, split: Split, site: str) -> None:
    """Write the whole model of ``site``, body and head, to a safetensors file that names the private layers.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
    metadata = {"site": site, "body_sha256": split.body.sha256, "head": json.dumps(split.head.names)}
    save_file(tensors, path, metadata=metadata)
