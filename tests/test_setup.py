"""The clean-machine promises: pins in one place, a Makefile that finds a Python, an importable torchvision."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from reidlib import torchvision_ops
from reidlib.files import REPOSITORY


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.\[\]-]+==[0-9][0-9.]*", line) for line in wanted), wanted
    return dict(line.split("==") for line in wanted)


def test_every_requirement_is_pinned_and_installed():
    from importlib.metadata import version

    if sys.prefix == sys.base_prefix or not (Path(sys.prefix) / ".ready").exists():
        return  # the pins are promised for .venv; another environment (a GPU machine's own) may hold other versions
    for name, pin in pins().items():
        assert version(name).split("+")[0] == pin, name


def test_environment_and_package_read_the_same_pins():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    packages = environment["dependencies"]
    assert [p for p in packages if isinstance(p, dict)] == [{"pip": ["-r requirements.txt"]}]
    assert sorted(p.split("=")[0] for p in packages if isinstance(p, str)) == ["pip", "python"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}


def run_make(folder: Path, pythons: dict[str, str]) -> subprocess.CompletedProcess:
    """Run `make test` of a copy of the Makefile where the PATH holds nothing but these scripts."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder / name)
    binaries = folder / "bin"
    binaries.mkdir()
    for name, body in pythons.items():
        script = binaries / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    make = shutil.which("make")
    assert make, "make is needed for this test"
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        [make, "test"], cwd=folder, env={**environment, "PATH": str(binaries)}, capture_output=True, text=True
    )


def test_make_says_so_when_no_python_runs(tmp_path):
    result = run_make(tmp_path, {"python3": "exit 127", "python3.12": 'case "$2" in *version_info*) exit 1;; esac'})
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "no Python 3.11 or newer" in errors[0]
    assert "too old: python3.12" in errors[0]


def test_make_says_so_when_venv_is_missing(tmp_path):
    result = run_make(tmp_path, {"python3": 'case "$2" in *venv*) exit 1;; esac'})
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert errors == ["error: python3 has no venv module (on Debian and Ubuntu: apt install python3-venv)"]


def test_make_passes_over_a_broken_shim(tmp_path):
    calls = tmp_path / "calls"
    good = f'echo "$0 $*" >> "{calls}"; case "$*" in "-m venv --clear .venv") exit 9;; esac'
    result = run_make(tmp_path, {"python3": "exit 127", "python3.13": good})
    assert result.returncode != 0  # the stand-in refuses to make the environment; that it was asked is the point
    assert "-m venv --clear .venv" in calls.read_text()


def in_new_process(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_torchvision_imports_and_works():
    result = in_new_process(
        "import reidlib.torchvision_ops, torch\n"
        "from torchvision.models import resnet18\n"
        "from torchvision.transforms import v2\n"
        "print(resnet18().eval()(v2.Resize((64, 32))(torch.rand(1, 3, 128, 64))).shape)"
    )
    assert result.stdout.strip() == "torch.Size([1, 1000])", result.stderr


def test_operators_are_declared_only_where_they_are_missing(monkeypatch):
    monkeypatch.setattr(torchvision_ops, "_has_compiled_ops", lambda: True)
    assert torchvision_ops._declare_missing() is None


@pytest.mark.parametrize("name", ["nms", "qnms"] if not torchvision_ops.COMPILED_OPS else [])
def test_a_declared_operator_does_not_pretend_to_work(name):
    import torch

    with pytest.raises(NotImplementedError):
        getattr(torch.ops.torchvision, name)(torch.zeros(1, 4), torch.zeros(1), 0.5)


def test_the_command_is_installed_under_its_name():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"reidlib": "reidlib.__main__:main"}


TORCHVISION = ("torchvision", "torchmetrics", "lpips", "torch_fidelity")  # the last three import the first


def imports_in_order(source: str) -> list[tuple[bool, str]]:
    """Return the imports of a file as they run: those of the module, then those inside functions; name of the root."""
    tree = ast.parse(source)
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else ["." * node.level + (node.module or "")]
            )
            if isinstance(node, ast.ImportFrom) and names == ["reidlib"]:
                names = [f"reidlib.{alias.name}" for alias in node.names]
            found += [(id(node) in inside, node.lineno, name) for name in names]
    return [(late, name) for late, _, name in sorted(found)]


def first_torchvision_before_the_shim(source: str) -> str | None:
    """Name the first import that would meet torchvision before `reidlib.torchvision_ops` has prepared it."""
    for _, name in imports_in_order(source):
        if name in SHIMMED:
            return None
        if name.split(".")[0] in TORCHVISION:
            return name
    return None


def shimmed_modules() -> set[str]:
    """Modules of reidlib whose import runs the shim first, directly or through another one at its top."""
    sources = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in (REPOSITORY / "reidlib").rglob("*.py")
    }
    shimmed, before = {"reidlib.torchvision_ops"}, 0
    while before != len(shimmed):
        before = len(shimmed)
        for module, source in sources.items():
            if any(not late and name in shimmed for late, name in imports_in_order(source)):
                shimmed |= {module}
    return shimmed


SHIMMED = shimmed_modules()
PYTHON_FILES = sorted(p for folder in ("reidlib", "tests") for p in (REPOSITORY / folder).rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_torchvision_is_never_imported_before_its_shim(path):
    first = first_torchvision_before_the_shim(path.read_text())
    assert first is None, f"{path.name} imports {first} before reidlib.torchvision_ops: alone it would fail"


def test_the_order_of_imports_is_seen():
    wrong = "from torchvision.models import vgg19\nimport reidlib.torchvision_ops"
    lazily = "import torch\ndef f():\n    from lpips import LPIPS"
    right = "from reidlib import torchvision_ops\ndef f():\n    from torchvision.models import vgg19"
    through = "from reidlib.networks import normalise\nimport torchvision"
    assert [first_torchvision_before_the_shim(s) for s in (wrong, lazily)] == ["torchvision.models", "lpips"]
    assert [first_torchvision_before_the_shim(s) for s in (right, through)] == [None, None]
