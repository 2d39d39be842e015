"""Word vectors by counting, against an exact decomposition and by what they are for."""

import numpy as np
import torch

from medray.training.language_model import build_decoder
from medray.training.packed import PackedBlocks, Tokens
from medray.training.word_vectors import word_vectors

TOPICS = ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def documents() -> PackedBlocks:
    """60 documents of 5 tokens, each of one topic; token 10 never occurs."""
    rng = np.random.default_rng(0)
    texts = [rng.choice(TOPICS[i % 3], 5).tolist() for i in range(60)]
    return PackedBlocks.pack([Tokens(ids, [True] * 5) for ids in texts], 16, 0)


def test_tokens_of_one_topic_lie_together_and_of_two_apart() -> None:
    vectors = word_vectors(documents(), vocab_size=11, size=3, seed=0)
    assert vectors.shape == (11, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors[1:10], axis=1), 1)
    assert not vectors[[0, 10]].any()  # padding and what never occurs
    cosines = vectors @ vectors.T
    same = [cosines[a, b] for topic in TOPICS for a in topic for b in topic if a < b]
    other = [cosines[a, b] for a in TOPICS[0] for topic in TOPICS[1:] for b in topic]
    assert min(same) > 0.8
    assert max(other) < 0


def test_agrees_with_an_exact_singular_value_decomposition() -> None:
    blocks = documents()
    counts = np.zeros((60, 11))
    row = -1
    for tokens_T, segments_T in zip(blocks.tokens_NT, blocks.segments_NT, strict=True):
        for segment in range(1, segments_T.max() + 1):
            row += 1
            for token in tokens_T[segments_T == segment]:
                counts[row, token] += 1
    inverse = np.log((1 + 60) / (1 + (counts > 0).sum(0))) + 1  # scikit-learn's smoothed idf
    weighted = np.log1p(counts) * inverse
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    _, values, right = np.linalg.svd(weighted, full_matrices=False)
    expected = (right[:3].T * np.sqrt(values[:3]))[1:10]
    expected -= expected.mean(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = word_vectors(blocks, vocab_size=11, size=3, seed=0)[1:10]
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)


def test_too_little_text_gives_zeros() -> None:
    blocks = PackedBlocks.pack([Tokens([1, 2], [True, True])], 4, 0)
    assert not word_vectors(blocks, vocab_size=5, size=4, seed=0).any()


def test_the_averaging_head_gives_the_mean_of_what_came_before(
    decoder, tokenizer, text_blocks
) -> None:
    model = build_decoder(decoder, tokenizer, text_blocks, seed=0)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model.eval()(torch.arange(3, 15)[None], output_attentions=True).attentions
    expected = torch.ones(12, 12).tril() / torch.arange(1, 13)[:, None]
    torch.testing.assert_close(weights[1][0, 1], expected)
    assert not torch.allclose(weights[1][0, 0], expected, atol=1e-3)
