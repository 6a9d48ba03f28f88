"""The rooms keep their size and their order, and the front door stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nextbuy"
MODULES = sorted(SOURCE.rglob("*.py"))
LAYERS = {
    **dict.fromkeys(["errors", "columns", "seeding", "progress", "memory", "threads"], 0),
    "storage": 1,
    "data": 2,
    **dict.fromkeys(["splitting", "metrics", "nn"], 3),
    "training": 4,
    **dict.fromkeys(["models", "timing"], 5),
    **dict.fromkeys(["evaluation", "bundle", "testing", "audience"], 6),
    "predictor": 7,
    **dict.fromkeys(["report", "tuning", "service", "cluster", "export"], 8),
    "cli": 9,
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    for name in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] == "nextbuy" and len(parts) > 1 and parts[1] in LAYERS and parts[1] != room:
            assert LAYERS[parts[1]] < LAYERS[room], f"{path} (layer {LAYERS[room]}) imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_rooms_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400, f"{path} has a second idea inside"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            most = 250 if isinstance(node, ast.ClassDef) else 60
            assert lines <= most, f"{path}:{node.lineno} {node.name} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_runs_code_from_data(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imported_modules(tree)
    assert not [n for n in names if n.split(".")[0] in {"pickle", "marshal", "shelve", "dill"}]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "yaml.load", "np.random.seed"}
        assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"
                    and ast.unparse(node.value) == "True")  # fmt: skip


def test_help_loads_no_engine():
    code = (
        "import sys, contextlib, io\n"
        "from nextbuy.cli.app import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    sys.argv = ['nextbuy', '--help']; main()\n"
        "print([m for m in ('torch', 'tensorflow', 'keras', 'ray', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
