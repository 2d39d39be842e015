from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from medray.common.errors import CheckpointError
from medray.retrieval.embed import Embedder, passage_text, save_instruction

TEXTS = ["肺炎怎么治疗", "贫血", "肾炎如何处理，肾炎如何处理", "0123"]


def test_equals_the_models_cls_state(encoder_dir: Path) -> None:
    vectors = Embedder(encoder_dir, batch_size=2).embed(TEXTS)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(encoder_dir),
        AutoModel.from_pretrained(encoder_dir).eval(),
    )
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            cls = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0].numpy()
        np.testing.assert_allclose(vector, cls / np.linalg.norm(cls), atol=1e-5)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_batch_size_and_order_do_not_matter(encoder_dir: Path) -> None:
    one = Embedder(encoder_dir, batch_size=1).embed(TEXTS)
    all_at_once = Embedder(encoder_dir, batch_size=64).embed(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(one, all_at_once, atol=1e-5)


def test_empty_input_and_text_beyond_the_positions(encoder_dir: Path) -> None:
    embedder = Embedder(encoder_dir)
    assert embedder.embed([]).shape == (0, 32)
    assert np.isfinite(embedder.embed(["肺" * 500, ""])).all()


def test_instruction_is_kept_in_the_model_directory(encoder_dir: Path, tmp_path: Path) -> None:
    for path in encoder_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_instruction(tmp_path, "治疗：")
    asked = Embedder(tmp_path).embed_queries(["肺炎"])
    np.testing.assert_allclose(asked, Embedder(tmp_path).embed(["治疗：肺炎"]), atol=1e-6)
    plain = Embedder(tmp_path, query_instruction="").embed_queries(["肺炎"])
    assert np.abs(asked - plain).max() > 1e-3


def test_directory_without_tokenizer_is_refused(encoder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((encoder_dir / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        Embedder(tmp_path)


def test_passage_text_has_the_title_first() -> None:
    assert passage_text("肺炎 治疗", "静滴") == "肺炎 治疗\n静滴"
    assert passage_text("", "静滴") == "静滴"
