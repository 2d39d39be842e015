"""Recall and precision by class against the sample hospital's planted identifiers."""

import gzip
import json
from collections import Counter

from medray.privacy.recognise import find_phi, known_strings
from medray.sample.hospital import SampleConfig, write_shard


def test_planted_identifiers_are_found_and_nothing_else(tmp_path):
    write_shard(SampleConfig(num_records=200, shard_records=200, seed=11), tmp_path, 0)
    records, truths = (
        [json.loads(line) for line in gzip.decompress((tmp_path / name).read_bytes()).splitlines()]
        for name in ("records/part-00000.jsonl.gz", "truth/records-00000.jsonl.gz")
    )
    planted, found, wrong = Counter(), Counter(), 0
    for record, truth in zip(records, truths, strict=True):
        texts = [section["text"] for section in record["sections"]]
        known = known_strings(texts)
        spans = [find_phi(text, known) for text in texts]
        for phi in truth["phi"]:
            planted[phi["class"]] += 1
            found[phi["class"]] += any(
                s.label == phi["class"] and s.start <= phi["start"] and s.end >= phi["end"]
                for s in spans[phi["section"]]
            )
        wrong += sum(map(len, spans)) - len(truth["phi"])
    assert len(planted) == 8
    recall = {label: found[label] / planted[label] for label in planted}
    assert min(recall.values()) >= 0.99, recall
    assert abs(wrong) <= 0.01 * planted.total()
