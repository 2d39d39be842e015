"""Quantised weights against the formats worked by hand, and what loads and refuses them."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from medray import cli
from medray.common.errors import CheckpointError
from medray.common.manifest import sha256_file
from medray.generation import directory
from medray.generation.batching import BatchingConfig
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling
from medray.serving.artefacts import Location
from medray.serving.messages import Finish, Piece
from medray.serving.policy import Policy
from medray.training.language_model import load_decoder
from medray.training.quantise import quantise, weights_size
from medray.training.reward.config import RewardConfig
from medray.training.reward.scorer import load_scorer

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra `quantise`)")

SHAPE = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
    "max_position_embeddings": 128, "initializer_range": 0.1,
}  # fmt: skip
MATRICES = [(128, 128), (64, 128), (64, 128), (128, 128), (192, 128), (192, 128), (128, 192)]
"""Rows and columns of q, k, v, o, gate, up and down."""
NF4 = [
    -1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
    0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0,
]  # fmt: skip
"""QLoRA, appendix E, to 4 places."""


@pytest.fixture(scope="module")
def sources(tokenizer: Any, tmp_path_factory) -> dict[str, Path]:
    """Exported decoders: `tied`, in fp32, and `untied`, in bf16."""
    root = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    size = SHAPE | ends | {"vocab_size": len(tokenizer)}
    tied = Qwen3ForCausalLM(Qwen3Config(**size, tie_word_embeddings=True, attention_bias=True))
    untied = LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=False))
    for name, model in (("tied", tied), ("untied", untied.to(torch.bfloat16))):
        model.generation_config = GenerationConfig(**ends, max_length=77)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        (root / name / "README.md").write_text("# A model\n\n## Lineage\n", encoding="utf-8")
    return {name: root / name for name in ("tied", "untied")}


@pytest.fixture(scope="module")
def quantised(sources: dict[str, Path], tmp_path_factory) -> dict[tuple[str, int], Path]:
    """Both in 8 and in 4 bits."""
    root = tmp_path_factory.mktemp("quantised")
    made = {(name, bits): root / f"{name}{bits}" for name in sources for bits in (8, 4)}
    for (name, bits), target in made.items():
        quantise(sources[name], target, bits)
    return made


CASES = pytest.mark.parametrize(
    ("name", "bits"), [("tied", 8), ("tied", 4), ("untied", 8), ("untied", 4)]
)


def dequantise_int8(tensors: dict[str, Tensor], name: str, _: torch.Size) -> tuple[Tensor, Tensor]:
    """A matrix, and how far each weight may be from the original's.

    The largest weight of a row, SCB, is code 127, so rounding moves a weight by SCB/254; before
    that all are rounded to float16, by 2^-11 of themselves.
    """
    scales = tensors[name.replace("weight", "SCB")][:, None]
    matrix = tensors[name].float() * scales / 127
    return matrix, (scales / 254 + scales * 2**-11).expand_as(matrix)


def dequantise_nf4(
    tensors: dict[str, Tensor], name: str, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """As above. The code's widest gap is that between -1 and -0.6962: half of it, 0.152."""
    code = tensors[f"{name}.quant_map"]
    torch.testing.assert_close(code, torch.tensor(NF4), atol=1e-4, rtol=0)
    pairs = tensors[name].flatten().long()
    codes = torch.stack([pairs >> 4, pairs & 15], dim=1).view(-1, 64)
    scales = tensors[f"{name}.absmax"][:, None]
    bound = (scales * 0.152).expand(-1, 64)
    return (code[codes] * scales).view(shape), bound.reshape(shape)


@CASES
def test_weights_are_as_near_as_the_format_has_them(
    sources: dict[str, Path], quantised: dict[tuple[str, int], Path], name: str, bits: int
) -> None:
    plain = load_file(sources[name] / "model.safetensors")
    packed = load_file(quantised[name, bits] / "model.safetensors")
    dequantise = dequantise_int8 if bits == 8 else dequantise_nf4
    matrices = [key for key in plain if key.endswith("proj.weight")]
    assert sorted(plain[key].shape for key in matrices) == sorted(MATRICES * 2)
    for key in plain:
        if key not in matrices:  # word vectors, head, norms, biases
            assert packed[key].dtype == plain[key].dtype and torch.equal(packed[key], plain[key])
            continue
        weight = plain[key].float()
        found, bound = dequantise(packed, key, weight.shape)
        error = (found - weight).abs()
        assert (error <= bound * 1.001).all()
        # Mean step of the code / 4, over the mean of |weight|, 0.8 σ: the largest of 128 or 192
        # normal weights lies near 2.8 σ, that of 64 near 2.5 σ. 2.8 / 127 / 4 / 0.8 = 0.7 %,
        # 2.5 · (2 / 15) / 4 / 0.8 = 10 %.
        assert 0 < error.mean() / weight.abs().mean() < (0.01 if bits == 8 else 0.12)
    assert ("lm_head.weight" in packed) == (name == "untied")


@CASES
def test_files_shrink_by_what_the_format_says(
    sources: dict[str, Path], quantised: dict[tuple[str, int], Path], name: str, bits: int
) -> None:
    source, target = sources[name], quantised[name, bits]
    width = 4 if name == "tied" else 2
    weights = 2 * sum(rows * columns for rows, columns in MATRICES)
    if bits == 8:  # a byte a weight, a float32 a row, a byte to name the format
        linear = weights + 2 * sum(4 * rows + 1 for rows, _ in MATRICES)
    else:  # half a byte, a float32 for 64; the code of 16 float32 and about 80 bytes of JSON
        linear = weights // 2 + 4 * weights // 64 + 2 * len(MATRICES) * (16 * 4 + 80)
    saved = weights_size(source) - weights_size(target)
    assert saved == pytest.approx(weights * width - linear, abs=6000)  # names in the header


@CASES
def test_the_model_says_nearly_the_same(
    sources: dict[str, Path], quantised: dict[tuple[str, int], Path], name: str, bits: int
) -> None:
    tokens = torch.randint(0, 300, (8, 64), generator=torch.Generator().manual_seed(1))
    model, info = AutoModelForCausalLM.from_pretrained(
        quantised[name, bits], output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    plain = AutoModelForCausalLM.from_pretrained(sources[name], dtype=torch.float32)
    with torch.no_grad():
        before, after = (float(m(tokens, labels=tokens).loss) for m in (plain.eval(), model.eval()))
    assert before != after
    assert after == pytest.approx(before, rel=0.003 if bits == 8 else 0.03)


@CASES
def test_the_engine_and_the_policy_answer_with_it(
    quantised: dict[tuple[str, int], Path], name: str, bits: int
) -> None:
    path = quantised[name, bits]
    engine = HFEngine(path)
    kept = {torch.float32 if name == "tied" else torch.bfloat16}
    floats = {p.dtype for p in engine.model.parameters() if p.is_floating_point()}
    assert floats == kept
    weights = {key: value.clone() for key, value in engine.model.named_parameters()}
    greedy = Sampling(max_new_tokens=6)
    (answer,) = engine.generate(["患者"], greedy)
    assert 0 < answer.num_tokens <= 6
    # Packed before the first answer: streams share the model.
    assert all(torch.equal(weights[key], p) for key, p in engine.model.named_parameters())
    assert len(engine.score(["患者", "气道"], [["肺炎", "咳"], ["是"]])[0]) == 2

    async def stream() -> list[Piece | Finish]:
        policy = Policy(Location(path=str(path)), BatchingConfig(max_requests=1))
        return [part async for part in policy.stream([{"role": "user", "content": "咳"}], greedy)]

    *_, finish = asyncio.run(stream())
    assert isinstance(finish, Finish) and 0 < finish.num_tokens <= 6


@CASES
def test_card_tokenizer_and_settings_come_along(
    sources: dict[str, Path], quantised: dict[tuple[str, int], Path], name: str, bits: int
) -> None:
    source, target = sources[name], quantised[name, bits]
    made_anew = {"config.json", "README.md", "model.safetensors"}
    for path in source.iterdir():
        if path.name not in made_anew:
            assert (target / path.name).read_bytes() == path.read_bytes()
    assert GenerationConfig.from_pretrained(target).max_length == 77
    chat = [{"role": "user", "content": "咳嗽"}]
    one, two = (AutoTokenizer.from_pretrained(d) for d in (source, target))
    assert one.apply_chat_template(chat) == two.apply_chat_template(chat)
    card = (target / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A model\n\n## Lineage\n")
    assert f"model.safetensors, sha256 {sha256_file(source / 'model.safetensors')}" in card
    assert f"how: {bits} bits, {'LLM.int8' if bits == 8 else 'NF4'}" in card
    assert f"{weights_size(source)} bytes before, {weights_size(target)} after" in card
    assert not list(target.parent.glob(".*"))


def test_training_refuses_quantised_weights(quantised: dict[tuple[str, int], Path]) -> None:
    with pytest.raises(CheckpointError, match="cannot be trained; take the directory that it was"):
        load_decoder(quantised["tied", 8])
    with pytest.raises(CheckpointError, match="cannot be trained"):
        load_scorer(quantised["tied", 4], RewardConfig())


def test_what_cannot_be_quantised(
    sources: dict[str, Path], quantised: dict[tuple[str, int], Path], model_dir: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, target = sources["tied"], tmp_path / "target"
    with pytest.raises(CheckpointError, match="no model directory"):
        quantise(tmp_path / "nix", target, 8)
    with pytest.raises(CheckpointError, match=r"is quantised already \(bitsandbytes\); give"):
        quantise(quantised["tied", 8], target, 4)
    with pytest.raises(CheckpointError, match=r"32 rows of 32 weights.* take --bits 8"):
        quantise(model_dir, target, 4)
    quantise(model_dir, tmp_path / "narrow", 8)

    scorer = tmp_path / "scorer"
    load_scorer(source, RewardConfig(max_tokens=64))[0].save_pretrained(scorer)
    AutoTokenizer.from_pretrained(source).save_pretrained(scorer)
    assert AutoModelForSequenceClassification.from_pretrained(scorer)
    with pytest.raises(CheckpointError, match=r"score\.weight is missing or too much"):
        quantise(scorer, target, 8)

    mixture = tmp_path / "mixture"
    shape = SHAPE | {"moe_intermediate_size": 64, "num_experts": 2, "num_experts_per_tok": 1}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, vocab_size=300)).save_pretrained(mixture)
    AutoTokenizer.from_pretrained(source).save_pretrained(mixture)
    with pytest.raises(CheckpointError, match=r"experts of a mixture.* take a model without"):
        quantise(mixture, target, 8)

    pickled = Path(shutil.copytree(source, tmp_path / "pickled"))
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pickled weights"):
        quantise(pickled, target, 8)
    assert not target.exists() and not list(tmp_path.glob(".*"))

    target.mkdir()
    with pytest.raises(CheckpointError, match="is there already"):
        quantise(source, target, 8)
    monkeypatch.setattr(directory, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"medray quantise needs .*pip install bitsandbytes"):
        quantise(source, target, 8)
    with pytest.raises(CheckpointError, match=r"is quantised and needs .*pip install bitsandbytes"):
        HFEngine(quantised["tied", 8])


def test_older_configs_do_not_name_the_method(model_dir: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(model_dir, tmp_path / "old"))
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"load_in_8bit": True}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert directory.quantisation(copied) == "bitsandbytes"
    assert directory.quantisation(model_dir) == ""


def test_the_command(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["quantise", str(sources["tied"]), str(tmp_path / "small"), "--bits", "4"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'small'}: 1.1 MB → 0.3 MB of weights\n"
    assert cli.main(argv) == 2
    assert "is there already" in capsys.readouterr().err
