"""The documentation is true: its examples load, its commands parse, its links lead somewhere, its programs run."""

import itertools
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

import flop_p2p
from flop_p2p import cli
from flop_p2p.cli import options
from flop_p2p.config import DataSettings, ExperimentSettings, load_experiment, load_site, validate
from flop_p2p.data import load_federated
from flop_p2p.gossip.actions import Mix
from flop_p2p.local.prepare import local_sites, prepare
from flop_p2p.local.results import collect
from flop_p2p.node.daemon import Node
from flop_p2p.node.summary import summarize
from flop_p2p.partial import split_model
from flop_p2p.simulation import load_data

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "nodes").rglob("README.md"))]
WITH_COMMANDS = [*PAGES, ROOT / "topologies" / "README.md"]
ALL_SETTINGS = ROOT / "examples" / "all-settings.toml"
SMALL = {"data.limit_images": 200, "data.partition": "iid", "data.sites": 3, "training.rounds": 2}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
TOPOLOGY_FILE_KEYS = {"family", "edges", "sites"}


def blocks(page: Path, language: str | None = None) -> list[str]:
    """The fenced blocks of a page, of all languages or of one."""
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in (None, kind)]


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each `flop-p2p` in a page's blocks."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\$ )?(?:\w+=\S+ )*flop-p2p (.*)", line)
            if found:
                yield shlex.split(found[1], comments=True)


def page_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


COMMANDS = [
    pytest.param(arguments, id=f"{page.name}: {shlex.join(arguments)}")
    for page in WITH_COMMANDS
    for arguments in commands(page)
]
PROGRAMS = [
    pytest.param(text, id=f"{page.name} {number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "python"))
]


# Settings


def test_experiments_in_pages_load() -> None:
    tables = [tomllib.loads(text) for page in PAGES for text in blocks(page, "toml")]
    experiments = [table for table in tables if not TOPOLOGY_FILE_KEYS & table.keys()]
    assert experiments
    for table in experiments:
        validate(ExperimentSettings, table, "documentation")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    assert load_experiment(path) != load_experiment(), "an example that sets nothing shows nothing"


def test_one_example_names_every_setting() -> None:
    everything = re.sub(r"^# (?=\w+ = )", "", ALL_SETTINGS.read_text(encoding="utf-8"), flags=re.M)
    given = tomllib.loads(everything)
    assert set(keys_of(given)) == set(keys_of_model(ExperimentSettings))
    validate(ExperimentSettings, given, "all settings")


def keys_of(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def keys_of_model(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of_model(field.annotation, f"{prefix}{key}.")
        else:
            yield prefix + key


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Commands


class Checked(Exception):  # noqa: N818 - no error
    """The settings of a command were read; it need not run."""


@pytest.fixture(scope="module")
def root_command() -> Any:
    """The command line with all its commands."""
    return typer.main.get_command(cli.command_line())


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_parse(arguments: list[str], root_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(path: Path | None, preset: str | None, overrides: dict[str, Any]) -> None:
        load_experiment(path if path is not None and path.exists() else None, preset, overrides)
        raise Checked

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(options, "load_experiment", check)
    command, name = root_command, "flop-p2p"
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    if "--help" in arguments:
        return
    context = command.make_context(name, list(arguments))  # refuses a flag that does not exist
    if "experiment" in context.params:
        with pytest.raises(Checked):
            command.invoke(context)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 15


# Programs


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, settings made small, and no download."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "hospital_net", raising=False)
    monkeypatch.setattr(
        flop_p2p,
        "load_experiment",
        lambda path=None, preset=None, overrides=None: load_experiment(path, preset, {**(overrides or {}), **SMALL}),
        raising=False,
    )
    resnet18 = torchvision.models.resnet18
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights=None, **options: resnet18(**options))
    return tmp_path


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program: str, small: Path) -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(program, "<documentation>", "exec"), names)
    assert len(names) > 2, "the program defined or imported nothing"


def test_the_medmnist_example_is_read_with_its_hospitals(small: Path) -> None:
    (program,) = (text for text in blocks(ROOT / "docs" / "data.md", "python") if "chest.npz" in text)
    exec(program, {})
    data = load_federated(DataSettings(source="medmnist", path=Path("chest.npz"), partition="natural"), seed=0)
    assert [site.name for site in data.sites] == ["graz", "linz"]
    assert data.dataset.class_names == ("normal", "pneumonia")


def test_your_own_model_runs_and_files_hold_the_fields_told(small: Path) -> None:
    (program,) = (text for text in blocks(ROOT / "docs" / "experiments.md", "python") if "def build" in text)
    (small / "hospital_net.py").write_text(program, encoding="utf-8")
    (arguments,) = (found for found in commands(ROOT / "docs" / "experiments.md") if "hospital_net:build" in found)
    model = dict(itertools.pairwise(arguments))
    overrides = {
        **SMALL,
        "model.name": model["--model"],
        "model.private": [model["--private"]],
        "model.batch_norm": model["--batch-norm"],
    }
    summary = flop_p2p.simulate(load_experiment(preset="quick", overrides=overrides), small / "run")
    line = json.loads((small / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    text = page_of("experiments.md")
    assert fields_of_table(text, "`summary.json`:") == set(summary)
    assert fields_of_table(text, "A line of `metrics.jsonl`:") == set(line)
    assert set(summary["metrics"]) < fields_of_table(text, "All are computed after mixing")


def test_files_and_answers_of_nodes_hold_the_fields_told(tmp_path: Path) -> None:
    settings = load_experiment(overrides={**SMALL, "data.sites": 2, "topology.name": "full", "training.rounds": 1})
    data = load_data(settings)
    sites = local_sites(settings, data, tmp_path)
    prepare(settings, data, sites, tmp_path)
    text = page_of("node-files.md")
    for site in sites:
        node = Node(load_site(site.settings))
        node.journal.mixed(Mix(0, 1.0, ()), 0.0)
        summary = summarize(site.name, node.protocol, node.membership, node.journal, node.transport)
        status = node.snapshot()
        node.journal.records.finish(summary)
        node.model.save_model(site.state / "model.safetensors")
        node.egress.close()
        node.lock.release()
        assert fields_of_table(text, "A line of a node:") == set(node.journal.records.last or {})
        assert fields_of_table(text, "The summary of a node:") == set(summary)
        assert fields_of_table(text, "prints the state of a running node:") == set(status)
        (link,) = status["neighbours"].values()
        assert fields_of_table(text, "A link to a neighbour:") == set(link)
        assert {path.name for path in site.state.iterdir()} < set(names_of_table(text, "# What a node writes"))
    told = fields_of_table(page_of("experiments.md"), "`summary.json`:") | fields_of_table(text, "two more:")
    assert told == set(collect(settings, data, sites, tmp_path, 1.0))


def names_of_table(text: str, before: str) -> Iterator[str]:
    """The names of files in the first column of the first table after a line; N is 1."""
    table = text[text.index(before) :].split("\n|---", 1)[1].split("\n\n", 1)[0]
    for row in table.splitlines()[1:]:
        yield from (name.replace("-N.", "-1.") for name in re.findall(r"`([^`]+)`", row.split(" | ")[0]))


def fields_of_table(text: str, before: str) -> set[str]:
    """The names in the first column of the table after a line."""
    table = text[text.index(before) :].split("\n\n")[1]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "densenet121"])
def test_heads_of_backbones_are_as_told(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| `(\S+)` \| `([^`]+)`", page_of("experiments.md"), re.M)
    default, more = row[0], [glob for glob in shlex.split(row[1]) if glob != "--private"]
    with torch.device("meta"):  # names and shapes, no numbers
        model = torchvision.models.get_model(name, num_classes=2)
    assert split_model(model).head == split_model(model, [default]).head
    assert set(split_model(model, more).head.names) > set(split_model(model).head.names)


def test_the_output_of_data_show_is_real(small: Path, root_command: Any) -> None:
    (arguments,) = (found for found in commands(ROOT / "docs" / "data.md") if "partition.png" in found)
    (told,) = (text for text in blocks(ROOT / "docs" / "data.md") if text.startswith("digits: "))
    app = typer.Typer()
    app.command()(cli.data.show)
    result = CliRunner().invoke(app, arguments[2:], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert [line.rstrip() for line in result.stdout.splitlines()] == told.splitlines()
