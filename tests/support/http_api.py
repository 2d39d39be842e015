"""Questions to the HTTP API of a test, and what its audit log has of them."""

import json
from pathlib import Path
from typing import Any

from medray.serving.audit_log import read_entries

KEY = bytes(range(32))


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def chat(question: str, **fields: Any) -> dict[str, Any]:
    return {"model": "medray", "messages": [{"role": "user", "content": question}], **fields}


def post(client: Any, path: str, body: Any, secret: str) -> Any:
    return client.post(f"/v1/{path}", json=body, headers=bearer(secret))


def entries(place: Path, request: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_entries(place / "audit", request, KEY)]
