"""The directory of a comparison: may it be used, what settings does it hold, and how files get into it."""

import tomli_w

from flop_p2p.comparison.plan import Plan
from flop_p2p.config import ExperimentSettings, first_difference, read_toml, validate
from flop_p2p.errors import RunError
from flop_p2p.writing import write_text, writing

CONFIG = "config.toml"
RESULT = "comparison.json"

# What may change when a comparison is resumed: runs are added or left out, and none of the others changes.
MAY_CHANGE = {f"comparison.{name}" for name in ("methods", "topologies", "seeds", "target_accuracy")}


def check_directory(plan: Plan, resume: bool) -> None:
    """Make sure that the directory of ``plan`` is new or empty, or that its comparison can be resumed.

    Raises:
        RunError: it holds something else, or a comparison that may not or cannot be resumed.
    """
    out = plan.out
    try:
        is_used = out.exists() and any(out.iterdir())
    except OSError as error:
        raise RunError(f"{out}: cannot be the directory of a comparison ({error.strerror})") from error
    if is_used and not (out / CONFIG).exists():
        raise RunError(f"{out}: not empty and not a comparison of flop-p2p; choose another --out")
    if is_used and not resume:
        raise RunError(f"{out}: holds a comparison already; add --resume to go on with it, or choose another --out")
    if is_used:
        _check_same_settings(plan)


def _check_same_settings(plan: Plan) -> None:
    config = plan.out / CONFIG
    before = validate(ExperimentSettings, read_toml(config), str(config))
    if difference := first_difference(before, plan.settings, MAY_CHANGE):
        raise RunError(f"{plan.out}: cannot resume with other settings: {difference}")


def write_config(plan: Plan) -> None:
    """Make the directory and write the settings of the comparison as resolved.

    Raises:
        RunError: it cannot be written.
    """
    with writing(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
    write_text(plan.out / CONFIG, tomli_w.dumps(plan.settings.model_dump(mode="json", exclude_none=True)))
