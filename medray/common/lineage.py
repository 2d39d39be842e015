"""Which artefacts were made of files that are no longer there, after an erasure for one."""

from functools import cache

from medray.common.manifest import stored_manifest
from medray.common.storage import Storage

Name = tuple[str, str]
"""Step and key."""


def find_outdated(storage: Storage) -> list[Name]:
    """Artefacts made of files that their parents, or the parents of those, no longer hold.

    A parent step of which nothing is left under the root counts as unchanged.
    """
    manifests = {name: stored_manifest(storage, *name) for name in storage.list()}
    by_content = {(step, m.content): (step, key) for (step, key), m in manifests.items()}
    steps = {step for step, _ in manifests}

    @cache
    def is_outdated(name: Name) -> bool:
        parents = [
            (parent, by_content.get((parent, content)))
            for parent, content in manifests[name].parents.items()
        ]
        return any(
            parent in steps if made is None else is_outdated(made) for parent, made in parents
        )

    return [name for name in sorted(manifests) if is_outdated(name)]
