"""The arrows between packages, read from the source; and what an import loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "ray", "deepspeed", "transformers", "trl", "pymilvus", "FlagEmbedding"}
LIGHT_PACKAGES = ("common", "privacy", "quality", "evaluation", "sample")
PROMPTS, DIRECTORY = "medray.generation.prompts", "medray.generation.directory"
HEADINGS = "medray.corpus.readers.headings"

# Package → what it may import besides itself. A longer name admits that one module only.
# Top-level modules (cli, doctor, launch, ...) import everything, and no package imports them.
ARROWS: dict[str, set[str]] = {
    "common": set(),
    "privacy": {"medray.common"},
    "sample": {"medray.common", "medray.privacy"},
    "corpus": {"medray.common", "medray.privacy", PROMPTS},
    "instructions": {"medray.common", "medray.privacy", PROMPTS, HEADINGS},
    "retrieval": {"medray.common", "medray.privacy", DIRECTORY},
    "generation": {"medray.common", "medray.privacy"},
    "training": {"medray.common", "medray.privacy", "medray.generation"},
    "quality": {"medray.common", "medray.privacy", PROMPTS, HEADINGS},
    "evaluation": {"medray.common", "medray.privacy", "medray.quality", PROMPTS},
    "serving": {
        "medray.common",
        "medray.privacy",
        "medray.generation",
        "medray.retrieval",
        "medray.quality",
        HEADINGS,
    },
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "medray").rglob("*.py"))}
PACKAGED = [name for name in SOURCES if name.count(".") >= 1 and name.split(".")[1] in ARROWS]


def imports(name: str) -> Iterator[str]:
    """Every module imported anywhere in `name`, inside functions and TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: write absolute imports"
            base = node.module or ""
            for alias in node.names:
                module = f"{base}.{alias.name}"
                yield module if module in SOURCES else base


def may_import(name: str, other: str) -> bool:
    own = ".".join(name.split(".")[:2])
    allowed = {own, *ARROWS[name.split(".")[1]]}
    return any(other == prefix or other.startswith(f"{prefix}.") for prefix in allowed)


def test_every_package_stands_in_the_table() -> None:
    packages = {path.name for path in (ROOT / "medray").iterdir() if path.is_dir()}
    assert {name for name in packages if not name.startswith(("_", "."))} <= set(ARROWS)


@pytest.mark.parametrize("name", PACKAGED)
def test_packages_import_only_along_the_arrows(name: str) -> None:
    ours = {other for other in imports(name) if other.startswith("medray.")}
    assert [other for other in sorted(ours) if not may_import(name, other)] == []


@pytest.mark.parametrize("name", [n for n in PACKAGED if n.split(".")[1] in LIGHT_PACKAGES])
def test_light_packages_import_nothing_heavy(name: str) -> None:
    assert {other.split(".")[0] for other in imports(name)} & HEAVY == set()


def test_the_rule_catches_a_wrong_arrow() -> None:
    assert not may_import("medray.retrieval.index", "medray.generation.engine")
    assert not may_import("medray.quality.run", "medray.generation.engine")
    assert not may_import("medray.corpus.prepare", "medray.launch")
    assert may_import("medray.quality.run", PROMPTS)
    assert may_import("medray.serving.app", "medray.retrieval.search")


def test_no_circles() -> None:
    graph = {name: {o for o in imports(name) if o in SOURCES} - {name} for name in SOURCES}
    graph.pop("medray")  # holds the version only
    while free := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in free}
    assert graph == {}, "these modules import each other in a circle, or are imported by one"


def test_importing_common_and_the_command_line_loads_nothing_heavy() -> None:
    light = [name for name in SOURCES if name.startswith("medray.common")] + ["medray.cli"]
    code = f"import sys, {', '.join(light)}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
