"""A corpus of ten passages, questions about them, and a small BERT with random weights."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from medray.common.records import Document, Passage, RetrievalQuestion, Section
from medray.common.rows import write_rows
from medray.retrieval.training.tokenizer import train_tokenizer

DISEASES = ["肺炎", "哮喘", "胃炎", "肾炎", "贫血"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten passages (two sections of five diseases) and the documents they come from."""
    root = tmp_path_factory.mktemp("corpus")
    passages, documents = [], []
    for disease in DISEASES:
        sections = []
        for heading, verb in (("症状", "常见的表现是"), ("治疗", "首先应当给予")):
            text = f"{disease}{verb}{disease[0] * 3}，CRP 12.5mg/L，血压120/80mmHg。"
            sections.append(Section(heading=heading, text=text))
            passages.append(
                Passage(
                    passage_id=f"{disease}-{heading}", doc_id=disease, start=0, end=len(text),
                    section=heading, title=f"{disease} {heading}", text=text,
                    kind="guideline" if heading == "治疗" else "encyclopaedic",
                )
            )  # fmt: skip
        documents.append(
            Document(
                doc_id=disease, kind="encyclopaedic", title=disease, source="test",
                sections=sections, split="dev" if disease == "贫血" else "train",
            )
        )  # fmt: skip
    write_rows(root / "passages", Passage, passages, shard_rows=4)
    write_rows(root / "documents", Document, documents)
    return root


@pytest.fixture(scope="session")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training and one held-out question on each treatment."""
    root = tmp_path_factory.mktemp("instructions")
    questions = [
        RetrievalQuestion(
            id=f"{disease}-{split}", question=f"{disease}{words}",
            passage_ids=[f"{disease}-治疗"], split=split,
        )
        for disease in DISEASES
        for split, words in (("train", "怎么治疗？"), ("dev", "如何处理？"))
    ]  # fmt: skip
    write_rows(root / "questions", RetrievalQuestion, questions)
    return root


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers, width 32, with a tokenizer of its own, as `encoder/model`."""
    directory = tmp_path_factory.mktemp("encoder") / "model"
    train_tokenizer(["".join(DISEASES) + "如何处理怎么治疗症状，。0123456789"], 200, 64, directory)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(AutoTokenizer.from_pretrained(directory)), hidden_size=32,
            num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.2,  # at 0.02 all texts point the same way, and hits are ties
        )
    ).save_pretrained(directory)  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def m3_dir(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same encoder laid out as a BGE-M3, with random heads."""
    directory = tmp_path_factory.mktemp("m3") / "model"
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    tokenizer.eos_token = tokenizer.sep_token  # as XLM-R has it; special tokens weigh nothing
    tokenizer.save_pretrained(directory)
    model = AutoModel.from_pretrained(encoder_dir)
    model.save_pretrained(directory)
    torch.manual_seed(1)
    width = model.config.hidden_size
    for name, size in (("sparse", 1), ("colbert", width)):
        torch.save(torch.nn.Linear(width, size).state_dict(), directory / f"{name}_linear.pt")
    return directory
