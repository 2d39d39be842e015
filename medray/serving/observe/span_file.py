"""Spans of all processes of a machine in one bounded file, for hospitals without a collector."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

FILE = "spans.jsonl"


class FileExporter(SpanExporter):
    """Spans as lines of JSON. All processes of a machine share the file, and its bound."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = directory / FILE, max_bytes
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Adds lines, whole ones; starts the file anew where they would not go in."""
        data = b"".join(span.to_json(indent=None).encode() + b"\n" for span in spans)
        try:
            handle = self._open()
            try:
                size = os.fstat(handle).st_size
                if size and size + len(data) > self._max_bytes:
                    os.replace(self._path, self._path.with_suffix(".1.jsonl"))
                    os.close(handle)
                    handle = self._open()
                    size = os.fstat(handle).st_size
                if os.write(handle, data) != len(data):
                    os.ftruncate(handle, size)
                    return SpanExportResult.FAILURE
            finally:
                os.close(handle)
        except OSError:
            return SpanExportResult.FAILURE  # a trace is not worth a request
        return SpanExportResult.SUCCESS

    def _open(self) -> int:
        """The file, locked; not one that another process has put aside meanwhile."""
        while True:
            handle = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(handle), os.stat(self._path)):
                    return handle
            except FileNotFoundError:
                pass
            os.close(handle)
