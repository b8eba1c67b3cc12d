"""The stair that only goes down: a module imports from its own package and from the floors below, nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reidlib

ROOT = Path(reidlib.__file__).parent
FLOORS = (  # from the ground up; names beside each other never import each other
    ("checks", "files"),
    ("machine", "torchvision_ops"),
    ("networks",),
    ("losses",),
    ("datasets",),
    ("training", "evaluators"),
    ("generators", "embedders"),
    ("experiments",),
    ("course",),
    ("tools",),
    ("__main__",),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def imported_rooms(path: Path) -> set[str]:
    """Return the packages and modules of reidlib that a file imports, lazily or not, by absolute or relative name."""
    inside = path.relative_to(ROOT).with_suffix("").parts
    package = ("reidlib", *inside[:-1])
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "reidlib" else [base]
        rooms |= {name.split(".")[1] for name in names if name.startswith("reidlib.")}
    return rooms - {inside[0]}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_go_down(path):
    room = path.relative_to(ROOT).with_suffix("").parts[0]
    if room == "__init__":
        return
    assert room in FLOOR_OF, f"{room} stands on no floor: add it to FLOORS"
    wrong = sorted(name for name in imported_rooms(path) if FLOOR_OF[name] >= FLOOR_OF[room])
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}, which is not below it"


def test_no_circle_inside_a_package():
    """Every module can be the first that a fresh interpreter imports."""
    modules = [
        ".".join(("reidlib", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "__main__.py"
    ]
    graph = {name: _direct(name, set(modules)) for name in modules}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"import circle: {' -> '.join((*above[above.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def _direct(module: str, known: set[str]) -> set[str]:
    """Modules that a module imports at its top; what its own package's `__init__` collects does not count."""
    inside = module.split(".")[1:]
    path = ROOT.joinpath(*inside)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    package = ["reidlib", *(inside if path.name == "__init__.py" else inside[:-1])]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found |= {n for n in (f"{base}.{alias.name}" for alias in node.names) if n in known} or ({base} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found - {module}


def test_importing_a_generator_loads_no_evaluator_and_no_scipy():
    code = (
        "import sys, reidlib.generators.pn_gan as m; "
        "rooms = ('reidlib.evaluators', 'reidlib.embedders', 'scipy', 'sklearn'); "
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
