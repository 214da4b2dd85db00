"""The package as it is installed from a wheel, away from the repository: every room is in it, and so is the bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from planted import Planted

ROOT = Path(__file__).parent.parent
ROOMS = ("atlas", "hooked", "ingest", "queries")
INSTALL = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was installed to."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # what an earlier build left in the repository would be packed as well
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*INSTALL, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*INSTALL, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def run(site: Path, folder: Path, *command: str) -> str:
    """What Python prints, with the installed package before all others."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-P", *command], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_module_of_the_repository_is_installed_and_imports(site: Path, tmp_path: Path) -> None:
    files = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert files == {path.relative_to(site) for room in ROOMS for path in (site / room).rglob("*.py")}
    assert all((site / room / "py.typed").exists() for room in ROOMS)
    data = {p.relative_to(ROOT) for p in (ROOT / "queries").rglob("*") if p.suffix in (".js", ".css", ".html", ".svg")}
    assert len(data) > 12 and all((site / path).exists() for path in data)
    modules = sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)
    code = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    found = run(site, tmp_path, "-c", code, *modules).splitlines()
    assert len(found) == len(files) and all(path.startswith(str(site)) for path in found)


@pytest.mark.slow
def test_the_installed_command_makes_an_atlas_of_the_bundle(site: Path, tmp_path: Path) -> None:
    command = "from atlas.cli.main import main; main()"
    bundle = site / "ingest" / "bundle" / "smollm2-135m"
    assert "4 dictionaries added" in run(site, tmp_path, "-c", command, "ingest", str(bundle), "--sites", "res")
    feature = "smollm2-135m-instruct/9-res-2k/2018"
    tree = run(site, tmp_path, "-c", command, "lineage", feature, "--min-res", "floor")
    assert tree.splitlines()[0] == f"{feature}: 4 features, earliest first"


@pytest.mark.slow
def test_the_installed_page_is_served(site: Path, tmp_path: Path) -> None:
    """Scripts, styles and templates are those of the wheel, not of the repository."""
    Planted(range(3)).at(tmp_path / "atlas")
    command = [sys.executable, "-P", "-c", "from atlas.cli.main import main; main()"]
    command += ["serve", "-a", str(tmp_path / "atlas"), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as page:
        try:
            assert page.stdout is not None
            address = page.stdout.readline().strip()
            with httpx.Client(base_url=address.partition("/?")[0], follow_redirects=True) as client:
                assert "planted" in client.get(address).text
                for path in (
                    "/static/page.js",
                    "/static/drawing.js",
                    "/static/page.css",
                    "/lineage?feature=1-res-24/2",
                ):
                    assert client.get(path).status_code == 200, path
        finally:
            page.terminate()
