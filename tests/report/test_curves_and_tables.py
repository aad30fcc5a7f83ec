"""Pictures and tables of comparisons that are made up from a formula."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from flop_p2p.comparison import build_plan
from flop_p2p.comparison.curves import SeedCurve
from flop_p2p.comparison.results import Record, evaluate
from flop_p2p.config import load_experiment
from flop_p2p.errors import RunError
from flop_p2p.report.curves import accuracy_bytes, accuracy_rounds, accuracy_sites, draw_comparison
from flop_p2p.report.tables import byte_size, comparison_markdown, comparison_tables

ALL = "majority,local,pooled,fedavg,fedavg-ft,flop,dfedavg,p2p-flop,p2p-flop-alt"


def made_up(
    methods="local,flop,p2p-flop", topologies="ring", seeds=5, rounds=(5, 10), auroc=0.97, sites=4, privacy=None
):
    """A comparison in which each method is half a point above the one before."""
    compared = {"comparison.methods": methods, "comparison.topologies": topologies, "comparison.seeds": seeds}
    settings = load_experiment(overrides=compared | (privacy or {}))
    plan = build_plan(settings, Path("out"))
    records = []
    for seed in plan.seeds:
        for place, arm in enumerate(plan.arms):
            final = 0.9 + 0.005 * place + 0.001 * (seed % 3)
            per_site = {f"hospital-{site}": final - 0.01 * site for site in range(sites)}
            accuracy = {"mean": final, "min": min(per_site.values()), "per_site": per_site, "sites_counted": sites}
            metrics = {"accuracy": accuracy, "balanced_accuracy": accuracy, "auroc": {"mean": auroc}}
            sent = 0 if arm.method in ("majority", "local", "pooled") else 40_000_000 * (1 + 20 * place)
            summary = {
                "weighting": "uniform",
                "lr": 0.01,
                "sites": sites,
                "rounds": 10,
                "model": "small-cnn",
                "task": "multiclass",
                "metrics": metrics,
                "pooled_test": metrics,
                "chosen_round": None,
                "late_sites": None,
                "bytes": {"total": sent, "busiest_site": sent // 4},
                "seconds": {"total": 123.4},
                "privacy": None,
            }
            if settings.privacy.differential and arm.method != "majority":
                spent = {f"hospital-{site}": {"epsilon": 1.0 + place + seed + 0.25 * site} for site in range(sites)}
                summary["privacy"] = {"sites": spent}
            curve = SeedCurve(rounds, tuple(final * r / 10 for r in rounds), tuple(sent * r // 10 for r in rounds))
            records.append(Record(plan.run(arm, seed, 0.01), summary, curve))
    return evaluate(settings, records, {})


def printed(comparison, width):
    file = io.StringIO()
    Console(file=file, width=width).print(comparison_tables(comparison, width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("topologies", ["ring,full", "one-peer-exponential"])
@pytest.mark.parametrize("seeds", [1, 5])
def test_no_cell_is_wrapped_or_cut(width, topologies, seeds):
    comparison = made_up(ALL, topologies, seeds)
    text = printed(comparison, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    # Every table has one line a method and topology, each beginning with both.
    tables = text.count("method ")
    for result in comparison.arms:
        begins = f"{result.arm.method} "
        rows = [
            line for line in text.splitlines() if line.startswith(begins) and f" {result.arm.topology or '–'} " in line
        ]
        assert len(rows) == tables


def test_the_table_fits_120_columns_in_one_piece():
    text = printed(made_up(topologies="ring,full"), 120)
    heading = next(line for line in text.splitlines() if line.startswith("method"))
    assert all(word in heading for word in ("topology", "accuracy", "AUROC", "site", "vs flop", "verdict", "busiest"))
    row = next(line for line in text.splitlines() if line.startswith("p2p-flop  full"))
    assert "91.6 ± 0.1" in row
    assert "+1.0 ± 0.0  matches  2.44 GB   610 MB         10" in row


NOISE = {"privacy.noise_multiplier": 1.5, "privacy.epsilon": 9.0, "privacy.unit": "patient", "privacy.delta": 1e-6}


def test_differential_privacy_and_masking_are_told():
    comparison = made_up("majority,local,p2p-flop", seeds=2, privacy={**NOISE, "privacy.masking": "pairwise"})
    noted = (
        "Differential privacy of a patient: noise multiplier 1.5, clipping norm 1, delta 1e-06, budget 9; "
        "epsilon 2.00 to 4.75 over sites and seeds. These are no figures of plain training."
    )
    markdown = comparison_markdown(comparison)
    assert noted in markdown
    assert "masked in gossip" in markdown
    text = printed(comparison, 200)
    assert noted in text
    assert "masked in gossip" in text
    assert [result.epsilon for result in comparison.arms] == [None, (2.0, 3.75), (3.0, 4.75)]
    assert "3.00 to 4.75" in text
    assert "epsilon 1.00 over sites" in comparison_markdown(made_up("local", seeds=1, sites=1, privacy=NOISE))


def test_plain_training_has_no_note_of_privacy():
    markdown = comparison_markdown(made_up())
    assert "privacy" not in markdown
    assert "epsilon" not in markdown
    assert "masked" not in markdown


def test_title_names_data_sites_seeds_weighting_and_head_loss():
    title = printed(made_up(), 200).splitlines()[0]
    expected = (
        "digits, iid · 4 sites · 5 seeds · 10 rounds · model small-cnn · weighting uniform · head loss cross-entropy"
    )
    assert title.strip() == expected


def test_too_few_seeds_are_said_and_give_no_verdict():
    text = printed(made_up(seeds=3), 120)
    assert "No verdict: it takes at least 5 seeds, and there are 3." in text
    assert "matches" not in text


def test_without_flop_there_is_nothing_to_differ_from():
    text = printed(made_up("local,p2p-flop"), 120)
    assert "centralized flop is not among the methods" in text
    assert "verdict" not in text
    assert "rounds to" not in text


def test_markdown_has_the_same_rows():
    text = comparison_markdown(made_up(auroc=None))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0].startswith("| method | topology | accuracy | balanced accuracy | AUROC | worst site | vs flop |")
    assert len({line.count("|") for line in table[:5]}) == 1
    assert table[4].startswith("| p2p-flop | ring | 91.1 ± 0.1 | 91.1 ± 0.1 | – | 88.1 | +0.5 ± 0.0 | matches |")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (44_700_000, "44.7 MB"), (999_600, "1 MB"), (3.21e15, "3210 TB")],
)
def test_bytes_are_readable(value, text):
    assert byte_size(value) == text


@pytest.mark.parametrize(
    ("methods", "topologies", "seeds", "rounds"),
    [
        ("local,flop,p2p-flop", "ring", 1, (10,)),
        ("local,flop,p2p-flop", "ring", 5, (5, 10)),
        (ALL, "ring,full", 5, (4, 10)),
    ],
)
def test_pictures_are_written(methods, topologies, seeds, rounds, tmp_path):
    paths = draw_comparison(made_up(methods, topologies, seeds, rounds), tmp_path)
    assert [path.name for path in paths] == ["accuracy-rounds.png", "accuracy-bytes.png", "accuracy-sites.png"]
    for path in paths:
        assert np.ptp(imread(path)[..., :3]) > 0.5


def test_curves_show_the_evaluated_rounds_and_bands_where_there_are_seeds():
    (axes,) = accuracy_rounds(made_up(rounds=(2, 5, 10))).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[2, 5, 10]] * 3
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(90.08)
    assert len(axes.collections) == 3
    (axes,) = accuracy_rounds(made_up(seeds=2)).axes
    assert not axes.collections


def test_traffic_is_logarithmic_where_it_differs_much():
    (axes,) = accuracy_bytes(made_up("local,p2p-flop", "ring,full,torus", rounds=(1, 10))).axes
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_label() == "local (no bodies sent)"
    (axes,) = accuracy_bytes(made_up("local,flop", rounds=(5, 10))).axes
    assert axes.get_xscale() == "linear"


def test_every_site_has_a_row_and_the_worst_is_on_top():
    (axes,) = accuracy_sites(made_up(sites=12)).axes
    assert next(iter(axes.get_yticklabels())).get_text() == "hospital-11"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert all(len(line.get_xdata()) == 12 for line in axes.lines[:3])


def test_every_look_differs():
    (axes,) = accuracy_rounds(made_up(ALL, "ring,full,torus")).axes
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == len(lines) == 15


def test_a_picture_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    with pytest.raises(RunError, match="cannot write this picture"):
        draw_comparison(made_up(), tmp_path / "absent")
