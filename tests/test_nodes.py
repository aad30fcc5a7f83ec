"""What a hospital takes from `nodes/` is true: templates name every setting, unit and container files say the same."""

import ast
import configparser
import json
import re
import shlex
import shutil
import subprocess
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel

from flop_p2p import cli, errors
from flop_p2p.config import FederationSettings, SiteSettings, load_federation, load_site
from flop_p2p.identity.keys import load_keys
from flop_p2p.identity.members import check_federation, own_member
from flop_p2p.node import prometheus

ROOT = Path(__file__).parent.parent
NODES = ROOT / "nodes"
DEPLOYMENT = ROOT / "docs" / "deployment.md"
SITE = NODES / "template" / "site.toml"
FEDERATION = NODES / "template" / "federation.toml"
UNIT = NODES / "systemd" / "flop-p2p@.service"
DOCKERFILE = NODES / "docker" / "Dockerfile"
COMPOSE = NODES / "docker" / "compose.yaml"
EXAMPLE = NODES / "example"
HOSPITALS = ("north", "east", "south", "west")

# Templates


@pytest.mark.parametrize(("path", "model"), [(SITE, SiteSettings), (FEDERATION, FederationSettings)])
def test_a_template_names_every_setting_and_no_other(path: Path, model: type[BaseModel]) -> None:
    everything = re.sub(r"^# (?=\w+ = |\[)", "", path.read_text(encoding="utf-8"), flags=re.M)
    assert set(keys_of(tomllib.loads(everything), free=("addresses", "own_weights"))) == set(keys_of_model(model))


@pytest.mark.parametrize("path", [SITE, FEDERATION], ids=lambda path: path.stem)
def test_each_setting_is_explained_where_it_first_comes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").split("\n[[members]]\nname", 1)[0].splitlines()
    given = [line for line in lines if re.match(r"(# )?\w+ = ", line)]
    assert len(given) > 10
    for line in given:
        assert re.search(r"  ?# [^#]{10,}$", line.removeprefix("# ")), line


def keys_of(table: dict[str, Any], prefix: str = "", free: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted keys; of a list of tables those of all of them, and under a table of the user's own keys theirs as *."""
    for key, value in table.items():
        tables = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for each in tables:
            if not isinstance(each, dict):
                yield prefix + key
            elif key in free:
                yield from keys_of({"*": next(iter(each.values()))}, f"{prefix}{key}.")
            else:
                yield from keys_of(each, f"{prefix}{key}.", free)


def keys_of_model(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        inner = next((each for each in models_in(field.annotation)), None)
        name = f"{prefix}{key}" + (".*" if get_origin(field.annotation) is dict else "")
        if inner is None:
            yield name
        else:
            yield from keys_of_model(inner, f"{name}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Settings inside optional, list and table types."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from models_in(part)


def test_the_templates_make_a_federation_that_can_run() -> None:
    federation = load_federation(FEDERATION)
    check_federation(federation)
    assert load_site(SITE).name in federation.names


def test_values_shown_as_default_are_the_defaults() -> None:
    federation = load_federation(FEDERATION)
    for section in ("gossip", "training"):
        value = getattr(federation, section)
        assert value == type(value)(), section
    site = load_site(SITE)
    for key in ("device", "threads", "evaluate_every", "checkpoint_seconds", "listen", "proxy", "metrics"):
        assert getattr(site, key) == SiteSettings.model_fields[key].default, key


# systemd


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    """The unit; of keys that come twice only the last counts, as nothing here depends on the first."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, encoding="utf-8")
    return parser


def test_the_unit_has_no_privileges(unit: configparser.ConfigParser) -> None:
    service = dict(unit["Service"])
    assert service["User"] == "flop-p2p"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert service["ProtectSystem"] == "strict"
    assert service["StateDirectory"] == "flop-p2p/%i"
    assert service["UMask"] == "0077"
    for key in (
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "RestrictSUIDSGID",
        "LockPersonality",
    ):
        assert service[key] == "yes", key
    assert service["RestrictAddressFamilies"].split() == ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]
    text = UNIT.read_text(encoding="utf-8")
    assert "\nSystemCallFilter=@system-service\n" in text
    assert "\nReadWritePaths" not in text


def test_the_unit_stops_and_restarts_a_node_as_its_exit_codes_say(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["Restart"] == "on-failure"
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) > 10, "a node takes up to ten seconds to leave"
    assert int(unit["Unit"]["StartLimitBurst"]) * int(service["RestartSec"]) < int(
        unit["Unit"]["StartLimitIntervalSec"]
    )
    final = {int(code) for code in service["RestartPreventExitStatus"].split()}
    codes = {
        error.exit_code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "exit_code")
    }
    assert final <= codes | {2}, "each of them is an exit code of ours, or that of a wrong command line"
    assert final.isdisjoint({1, 12, 14, 15}), "an address in use and a full disk may mend themselves"


def test_systemd_accepts_the_unit(tmp_path: Path, unit: configparser.ConfigParser) -> None:
    program = unit["Service"]["ExecStart"].split()[0]
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        text = UNIT.read_text(encoding="utf-8")
        assert unit.sections() == ["Unit", "Service", "Install"]
        assert all(re.match(r"[#\[]|[A-Z][A-Za-z]+=|$", line) for line in text.splitlines())
        return
    copy = tmp_path / UNIT.name
    copy.write_text(
        UNIT.read_text(encoding="utf-8").replace(program, shutil.which("true") or program), encoding="utf-8"
    )
    result = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=30)
    assert UNIT.name.partition("@")[0] not in result.stderr, result.stderr


# Containers


def test_the_dockerfile_runs_a_node_without_privileges() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    instructions: dict[str, list[str]] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        assert name in known | {"ENTRYPOINT", "CMD"}, line
        instructions.setdefault(name, []).append(rest)
    assert lines[0].startswith("FROM python:3.11-slim")
    assert instructions["STOPSIGNAL"] == ["SIGTERM"]
    assert int(instructions["USER"][-1].split(":")[0]) > 0
    assert lines.index(f"USER {instructions['USER'][-1]}") > max(
        lines.index(f"RUN {run}") for run in instructions["RUN"]
    )
    assert "constraints.txt" in instructions["RUN"][0]
    assert json.loads(instructions["ENTRYPOINT"][0]) == ["flop-p2p"]
    assert json.loads(instructions["CMD"][0])[0] == "node"
    assert json.loads(instructions["HEALTHCHECK"][0].partition("CMD ")[2])[:2] == ["flop-p2p", "status"]
    for copied in instructions["COPY"]:
        assert all((ROOT / source).exists() for source in copied.split()[:-1]), copied


def test_compose_agrees_with_image_and_template() -> None:
    content = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert list(content) == ["services"]
    (node,) = content["services"].values()
    assert node["user"] in DOCKERFILE.read_text(encoding="utf-8")
    assert node["read_only"] is True
    assert node["init"] is True
    assert node["cap_drop"] == ["ALL"]
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert node["restart"].startswith("on-failure")
    assert node["stop_grace_period"] == "20s"
    writable = [volume for volume in node["volumes"] if not volume.endswith(":ro")]
    assert writable == ["./state:/site/state"]
    ports = {endpoint.rpartition(":")[2] for endpoint in endpoints(load_federation(FEDERATION))}
    assert {port.partition(":")[0] for port in node["ports"]} == ports
    assert set(re.findall(r"^EXPOSE (.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.M)[0].split()) == ports


def endpoints(federation: FederationSettings) -> Iterator[str]:
    for member in federation.members:
        yield from filter(None, (member.control, member.bulk))


# The example

STUB = """#!/bin/sh
echo "$*" >> calls
case $1 in
    data) mkdir data; touch data/north.safetensors data/east.safetensors data/south.safetensors data/west.safetensors ;;
    federation) touch federation.toml ;;
esac
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of what is committed of the example."""
    folder = tmp_path / "example"
    for path in (EXAMPLE / "start.sh", EXAMPLE / "ring.toml", *(EXAMPLE / name / "site.toml" for name in HOSPITALS)):
        target = folder / path.relative_to(EXAMPLE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def test_the_script_makes_four_hospitals_that_fit_together(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(example)
    root_command = typer.main.get_command(cli.command_line())
    for arguments in commands_of_script(example, tmp_path):
        root_command(arguments, standalone_mode=False)
    federation = load_federation(example / "federation.toml")
    check_federation(federation)
    assert set(federation.names) == set(HOSPITALS)
    assert federation.topology.name == "ring.toml", "no server"
    for name in HOSPITALS:
        assert (example / "data" / f"{name}.safetensors").exists()
        site = load_site(example / name / "site.toml")
        member = own_member(federation, load_keys(site.keys), site.name)
        assert (site.listen, site.bulk_listen) == (member.control, member.bulk)
    assert [name for name in HOSPITALS if federation.member(name).control is None] == ["west"]


def commands_of_script(example: Path, tmp_path: Path) -> list[list[str]]:
    """Run the script with a program in place of `flop-p2p` that writes down how it was called; what that was."""
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "flop-p2p"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    copy = shutil.copytree(example, tmp_path / "scripted")
    result = subprocess.run(
        [copy / "start.sh"], env={"PATH": f"{stub.parent}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr
    for name in HOSPITALS:
        assert {path.name for path in (copy / name).iterdir()} == {"site.toml", "data.safetensors", "federation.toml"}
        assert f"flop-p2p node {name}/site.toml" in result.stdout
    return [shlex.split(line) for line in (copy / "calls").read_text(encoding="utf-8").splitlines()]


def test_nothing_that_the_script_makes_can_be_committed() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    made = ["federation.toml", "data/samples.toml"]
    for name in HOSPITALS:
        made += [
            f"{name}/{each}" for each in ("keys/curve.secret", "state/lock", "data.safetensors", "federation.toml")
        ]
    result = subprocess.run(
        [git, "check-ignore", *(str(EXAMPLE / each) for each in made)],
        cwd=NODES,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert len(result.stdout.splitlines()) == len(made)


# docs/deployment.md


def section(heading: str) -> str:
    """The text under a heading of the page."""
    return DEPLOYMENT.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_metrics_are_named_as_prometheus_sees_them() -> None:
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section("Watch it"), re.M))))
    gauges = {*prometheus.GAUGES, *prometheus.NEIGHBOUR_GAUGES}
    counters = {f"{name}_total" for name in (*prometheus.COUNTERS, *prometheus.NEIGHBOUR_COUNTERS)}
    assert told == gauges | counters | {"node_info"}


def test_messages_to_look_up_are_those_of_the_program() -> None:
    texts = [
        text
        for path in sorted((ROOT / "flop_p2p").rglob("*.py"))
        for text in texts_in(ast.parse(path.read_text(encoding="utf-8")))
    ]
    told = re.findall(r"^\| `(.*?)` \|", section("Troubleshooting"), re.M)
    assert len(told) > 10
    for message in told:
        parts = [part for part in message.split("…") if part.strip(" :")]
        assert any(all(part in text for part in parts) for text in texts), message


def texts_in(tree: ast.AST) -> Iterator[str]:
    """Texts of a program; values that are put into one are an ellipsis."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_times_told_are_the_defaults() -> None:
    told = re.findall(r"`(\w+)` ([\d.]+)", section("When a neighbour is late or down"))
    assert len(told) > 3
    gossip = load_federation(FEDERATION).gossip
    for key, value in told:
        assert getattr(gossip, key) == float(value), key
