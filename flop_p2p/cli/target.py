"""The site that a command is about: given by its `site.toml` or by its state directory."""

from pathlib import Path

from flop_p2p.config import load_site


def state_of(target: Path) -> tuple[Path, str | None]:
    """The state directory that ``target`` stands for, and the site's name where `site.toml` tells it.

    Raises:
        ConfigError: ``target`` is neither a folder nor a `site.toml`.
    """
    if target.is_dir():
        return target, None
    site = load_site(target)
    return site.state, site.name
