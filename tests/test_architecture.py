"""Rules that hold for every module: imports point downwards, nothing is unpickled, nothing asserts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import flop_p2p

ROOT = Path(flop_p2p.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LEVELS = (
    ("cli",),
    ("report", "comparison", "audit", "local"),
    ("simulation", "node"),
    ("gossip", "learning"),
    ("wire", "transport", "identity"),
    ("partial", "topology", "models", "data"),
    ("config",),
    ("writing",),
    ("errors", "seeding"),
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
# the report draws what comparisons and audits found, a transport carries what the wire defines, never the other way
SIDEWAYS = {("report", "comparison"), ("report", "audit"), ("transport", "wire")}
PUBLIC_FACE = ("__init__", "__main__")
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

Import = tuple[str, int]  # what is imported, in which line


def imports(module: str, tree: ast.AST, is_package: bool = False) -> Iterator[Import]:
    """Everything that a module imports anywhere in its code, by full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + is_package]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def upward_imports(module: str, tree: ast.AST, is_package: bool = False) -> list[str]:
    """Imports within flop_p2p that do not point downwards; of unknown packages too."""
    own = module.split(".")[1] if "." in module else "__init__"
    if own in PUBLIC_FACE:
        return []
    wrong = []
    for target, line in imports(module, tree, is_package):
        parts = target.split(".")
        if parts[0] != "flop_p2p" or parts[1:] in ([], ["__version__"]):
            continue
        other = parts[1]
        allowed = own == other or (own, other) in SIDEWAYS
        if not allowed and not (own in LEVEL and other in LEVEL and LEVEL[own] < LEVEL[other]):
            wrong.append(f"{module}, line {line}: imports {target}")
    return wrong


def unsafe_code(module: str, tree: ast.AST) -> list[str]:
    """Imports, calls and statements that library code must not have."""
    found = imports(module, tree)
    wrong = [f"{module}, line {line}: imports {name}" for name, line in found if name.split(".")[0] in UNSAFE]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            wrong.append(f"{module}, line {node.lineno}: assert; raise an error of flop_p2p.errors")
        if isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load" and options.get("weights_only") != "True":
                wrong.append(f"{module}, line {node.lineno}: torch.load without weights_only=True")
            if called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
                wrong.append(f"{module}, line {node.lineno}: np.load without allow_pickle=False")
            if called in ("eval", "exec"):
                wrong.append(f"{module}, line {node.lineno}: {called}")
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy"):
            wrong += [
                f"{module}, line {node.lineno}: call {node.module}.load by its full name"
                for alias in node.names
                if alias.name == "load"
            ]
    return wrong


def name_of(path: Path) -> str:
    parts = ["flop_p2p", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert upward_imports(name_of(path), tree, path.name == "__init__.py") == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_unpickled_and_nothing_asserts(path: Path) -> None:
    assert unsafe_code(name_of(path), ast.parse(path.read_text())) == []


def test_every_package_has_its_level() -> None:
    found = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES}
    assert found - set(PUBLIC_FACE) <= set(LEVEL)
    assert {"cli", "simulation", "learning", "partial", "config"} <= found


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("flop_p2p.config.base", "from flop_p2p.learning import Learner"),
        ("flop_p2p.data.load", "def read():\n    import flop_p2p.models.registry"),
        ("flop_p2p.models.small", "from flop_p2p import partial"),
        ("flop_p2p.learning.training", "from ..gossip import protocol"),
        ("flop_p2p.comparison.runner", "from flop_p2p.report import tables"),
        ("flop_p2p.errors", "from .config import base"),
        ("flop_p2p.seeding", "from flop_p2p.errors import FlopError"),
        ("flop_p2p.data.load", "if TYPE_CHECKING:\n    from flop_p2p.simulation import Simulation"),
        ("flop_p2p.config.base", "from flop_p2p.somewhere import thing"),
    ],
)
def test_the_rule_on_imports_finds(module: str, code: str) -> None:
    assert len(upward_imports(module, ast.parse(code))) == 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("flop_p2p.cli.simulate", "from flop_p2p.simulation import Simulation"),
        ("flop_p2p.cli.simulate", "from flop_p2p import __version__"),
        ("flop_p2p.report.tables", "from flop_p2p.comparison.results import Comparison"),
        ("flop_p2p.data.load", "from flop_p2p.data.dataset import Dataset\nimport numpy"),
        ("flop_p2p.learning.training", "from .batches import round_batches\nfrom ..config import TrainingSettings"),
        ("flop_p2p.__init__", "from flop_p2p.simulation import Simulation"),
    ],
)
def test_the_rule_on_imports_allows(module: str, code: str) -> None:
    assert upward_imports(module, ast.parse(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def f():\n    from cloudpickle import loads",
        "import dill as d",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, mmap_mode='r')",
        "assert ready",
        "eval(text)",
    ],
)
def test_the_rule_on_safe_code_finds(code: str) -> None:
    assert len(unsafe_code("flop_p2p.data.load", ast.parse(code))) == 1


def test_the_rule_on_safe_code_allows() -> None:
    code = "torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)\nmodel.eval()\njson.load(file)"
    assert unsafe_code("flop_p2p.data.load", ast.parse(code)) == []
