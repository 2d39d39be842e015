"""The rest of a model card: what the model descends from, and what was measured on the way.

Written when a stage has ended, into the model's README.md; nothing in it depends on when or how
fast it was made, so that the same work gives the same files.
"""

from medray.common.manifest import Artefact, read_manifest

UNKEPT = ("seconds",)


def complete_card(artefact: Artefact) -> None:
    """Adds lineage and figures to the card of the model in `artefact`, if it holds one."""
    path = artefact.dir / "model" / "README.md"
    if not path.exists():
        return
    card = path.read_text(encoding="utf-8").partition("\n## ")[0].rstrip("\n")
    lines = [card, "", "## Lineage", ""]
    for step, directory in sorted(artefact.parents.items()):
        manifest = read_manifest(directory)
        lines.append(f"- {step}/{manifest.key}, sha256 of its files {manifest.content}")
        lines += [f"  - from {name}, {content}" for name, content in manifest.parents.items()]
    if artefact.fingerprint:
        lines.append(f"- outside data, fingerprint {artefact.fingerprint}")
    figures = {name: value for name, value in artefact.metrics.items() if not name.endswith(UNKEPT)}
    lines += ["", "## Figures", "", "Held-out data of the stage; `run_eval` measures more.", ""]
    lines += [f"- {name}: {value}" for name, value in figures.items()]
    lines += ["", "The settings are in config.yaml beside the model's directory.", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
