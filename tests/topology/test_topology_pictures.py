"""Pictures are PNG files of a sensible size, for every kind of schedule."""

from pathlib import Path

import pytest
from PIL import Image

from flop_p2p.config import TopologySettings
from flop_p2p.errors import RunError
from flop_p2p.report.consensus import draw_consensus, human_bytes
from flop_p2p.report.topology import draw_topology
from flop_p2p.topology import Schedule, build_schedule


def build(spec: str, sites: int) -> Schedule:
    return build_schedule(TopologySettings(name=spec), [str(number) for number in range(sites)])


@pytest.mark.parametrize(
    ("spec", "sites", "panels"),
    [("torus", 12, 1), ("path", 2, 1), ("star", 9, 1), ("exponential", 70, 1), ("base:1", 6, 4), ("epidemic:2", 8, 6)],
)
def test_topologies_are_drawn(tmp_path: Path, spec: str, sites: int, panels: int) -> None:
    draw_topology(build(spec, sites), tmp_path / "net.png")
    with Image.open(tmp_path / "net.png") as picture:
        assert picture.format == "PNG"
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert picture.width / picture.height == pytest.approx({1: 0.92, 4: 0.93, 6: 1.39}[panels], abs=0.02)
    assert any(colour == (0, 114, 178) for _, colour in colours)


def test_shipped_networks_are_drawn(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "topologies" / "regional-referral.toml"
    from flop_p2p.topology import file_sites

    settings = TopologySettings(name=str(path))
    draw_topology(build_schedule(settings, file_sites(settings) or ()), tmp_path / "net.png")
    assert (tmp_path / "net.png").stat().st_size > 10_000


def test_more_links_than_can_be_seen_are_not_drawn(tmp_path: Path) -> None:
    draw_topology(build("full", 250), tmp_path / "net.png")
    with Image.open(tmp_path / "net.png") as picture:
        middle = picture.convert("L").crop((0, picture.height // 3, picture.width, picture.height // 2 - 30))
    left, right = middle.width // 4, 3 * middle.width // 4
    assert middle.crop((left, 0, right, middle.height)).getextrema() == (255, 255)


def test_the_comparison_is_drawn(tmp_path: Path) -> None:
    draw_consensus([build(spec, 9) for spec in ("ring", "full", "base:2", "epidemic:1")], 1e6, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 2 * picture.height


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "net.png", tmp_path / "net.txt"):
        with pytest.raises(RunError, match=f"{path.name}: cannot write this picture"):
            draw_topology(build("ring", 3), path)
        with pytest.raises(RunError, match=f"{path.name}: cannot write this picture"):
            draw_consensus([build("ring", 3)], 1.0, path)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (44_706_048, "44.7 MB"), (999_900, "1 MB"), (1.5e12, "1.5 TB"), (3e15, "3,000 TB")],
)
def test_bytes_are_readable(count: float, text: str) -> None:
    assert human_bytes(count) == text
