"""What a finished run left behind, ready to be compared with that of another."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file


def lines_without_seconds(directory: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` but for the measured time."""
    lines = [json.loads(text) for text in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def models(directory: Path) -> dict[str, bytes]:
    """Every saved tensor of every site."""
    return {
        f"{path.name}/{name}": value.numpy().tobytes()
        for path in sorted((directory / "models").iterdir())
        for name, value in load_file(path).items()
    }
