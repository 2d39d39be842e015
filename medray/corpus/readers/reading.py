"""Corpus sources as rows. In: files, documents and joined tables of an export. Out: the
`SourceRow | Rejected` of a whole source or of one task's share of it.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from medray.common.formats import TABLE_SUFFIXES
from medray.common.sources import Rejected, SourceRow, map_fields, read_file, source_files
from medray.corpus.readers.document_files import DOCUMENT_SUFFIXES, is_document, read_document
from medray.corpus.readers.fhir import read_fhir
from medray.corpus.readers.joins import Part, Table, read_table
from medray.corpus.readers.mimic import COLUMNS as MIMIC
from medray.corpus.readers.mimic import read_mimic
from medray.corpus.readers.omop import COLUMNS as OMOP
from medray.corpus.readers.omop import read_omop
from medray.corpus.sources import CorpusSource

STRIDE = 64
"""Rows of a file that go to one task before the next one has its turn."""


def corpus_files(source: CorpusSource, data: Path) -> list[Path]:
    """The files that `path` names.

    Raises:
        DataError: as `source_files`, of the tables to be joined too.
    """
    for table in source.tables.values():
        source_files(source.model_copy(update={"path": table}), data)
    documents = DOCUMENT_SUFFIXES if source.format == "files" else ()
    return source_files(source, data, (*TABLE_SUFFIXES, *documents))


def open_files(source: CorpusSource, data: Path) -> None:
    """Opens every file and looks at its first row, of tables to be joined at their columns.

    Raises:
        DataError: if a file is missing, empty, damaged, in another encoding or another table.
    """
    paths = corpus_files(source, data)
    if source.format in ("mimic", "omop"):
        columns = MIMIC if source.format == "mimic" else OMOP
        for name, path in {"notes": source.path, **source.tables}.items():
            table = Table(name, path, columns[name])
            next(read_table(source.name, table, source.encoding, data))
    for path in paths:
        if not is_document(path):
            next(read_file(source, path, data))


def read_corpus(source: CorpusSource, data: Path) -> Iterator[SourceRow | Rejected]:
    """Yields every row of a source, in an order that depends on its files alone."""

    def rows() -> Iterator[SourceRow | Rejected]:
        if source.format != "files":
            yield from _joined(source, data, Part())
            return
        for path in corpus_files(source, data):
            if is_document(path):
                yield read_document(source, path, data)
            else:
                yield from read_file(source, path, data)

    return islice(rows(), source.limit)


def read_part(
    source: CorpusSource, data: Path, files: Sequence[str], part: Part
) -> Iterator[SourceRow | Rejected]:
    """Yields the share of one of `part.of` tasks; together they yield every row once.

    Args:
        files: those to read, relative to `data`. Their rows are shared by runs of STRIDE, joins by
            patient; documents, and a source with a limit, are not shared.
    """
    if source.limit:
        yield from read_corpus(source, data)
    elif source.format != "files":
        yield from _joined(source, data, part)
    else:
        for path in (data / name for name in files):
            if is_document(path):
                yield read_document(source, path, data)
            else:
                yield from read_file(
                    source, path, data, lambda place: place // STRIDE % part.of == part.index
                )


def _joined(source: CorpusSource, data: Path, part: Part) -> Iterator[SourceRow | Rejected]:
    tables = {"notes": source.path, **source.tables}
    if source.format == "fhir":
        rows = read_fhir(source.name, source.path, source.encoding, data, part)
    elif source.format == "mimic":
        rows = read_mimic(source.name, tables, source.encoding, data, part)
    else:
        rows = read_omop(source.name, tables, source.encoding, data, part)
    for row in rows:
        yield map_fields(row, source) if isinstance(row, SourceRow) else row
