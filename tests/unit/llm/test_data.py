"""Text becomes tokens and windows the same way every time, in memory and on disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.llm.needs import need_ml

need_ml()

import torch  # noqa: E402

from llm.config import ConfigError  # noqa: E402
from llm.data import (  # noqa: E402
    REPLACEMENT,
    CharacterTokenizer,
    NextTokenDataset,
    read_corpus,
    split,
    tokenize_file,
)

LINE = "angelos is online\n"


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1).filter(any))
def test_what_is_encoded_is_decoded_again(corpus):
    tokenizer = CharacterTokenizer(corpus)
    for part in corpus:
        assert tokenizer.decode(tokenizer.encode(part)) == part
    assert tokenizer.vocab_size == len(set("".join(corpus)))


def test_the_order_of_the_corpus_does_not_change_the_ids():
    first, second = CharacterTokenizer(["ab", "c"]), CharacterTokenizer(["cba"])
    assert first.encode("cab") == second.encode("cab")
    assert CharacterTokenizer(["ba"]).encode("ab") == [0, 1]


def test_each_rule_for_unknown_characters():
    with pytest.raises(ValueError, match=r"'x' at 1.*unknown='replace'"):
        CharacterTokenizer(["ab"]).encode("axb")
    skipping = CharacterTokenizer(["ab"], "skip")
    assert skipping.decode(skipping.encode("axb")) == "ab"
    replacing = CharacterTokenizer(["ab"], "replace")
    assert replacing.decode(replacing.encode("axb")) == f"a{REPLACEMENT}b"


def test_a_tokenizer_comes_back_from_its_plain_values():
    tokenizer = CharacterTokenizer([LINE], "skip")
    again = CharacterTokenizer(**tokenizer.to_dict())
    assert (again.characters, again.unknown) == (tokenizer.characters, "skip")


@pytest.mark.parametrize("corpus", [[], [""], "a bare string"])
def test_a_corpus_that_cannot_be_is_refused(corpus):
    with pytest.raises(ConfigError, match="the corpus is"):
        CharacterTokenizer(corpus)


@pytest.mark.parametrize("ids", [[2], [-1]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(ValueError, match="from 0 to 1"):
        CharacterTokenizer(["ab"]).decode(ids)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20))
def test_targets_are_the_inputs_moved_by_one(length, block_size):
    dataset = NextTokenDataset(torch.arange(length), block_size)
    inputs, targets = dataset[torch.arange(len(dataset))]
    assert inputs.shape == targets.shape == (len(dataset), block_size)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert set(inputs[:, 0].tolist()) >= set(range(max(1, length - block_size)))


def test_a_text_shorter_than_a_window_is_read_as_a_circle():
    tokenizer = CharacterTokenizer([LINE])
    dataset = NextTokenDataset(torch.tensor(tokenizer.encode(LINE)), 64)
    assert len(dataset) == len(LINE)
    for start in range(len(LINE)):
        circle = (LINE * 6)[start:]
        inputs, targets = dataset[start]
        assert tokenizer.decode(inputs.tolist()) == circle[:64]
        assert tokenizer.decode(targets.tolist()) == circle[1:65]


def test_the_last_part_is_held_out_if_it_fills_a_window():
    tokens = torch.arange(100)
    train, held_out = split(tokens, 0.1, 9)
    assert train.tolist() == list(range(90))
    assert held_out is not None
    assert held_out.tolist() == list(range(90, 100))
    assert split(tokens, 0.1, 10) == (tokens, None)
    assert split(tokens, 0.0, 4)[1] is None


@pytest.mark.parametrize("text", [LINE * 50, "".join(map(chr, range(32, 900)))])
def test_a_mapped_file_holds_what_the_text_holds(tmp_path, text):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    tokenize_file(tmp_path / "a.txt", tmp_path / "a.tokens")
    mapped, tokenizer = read_corpus(tmp_path / "a.tokens", None)
    plain, _ = read_corpus(tmp_path / "a.txt", None)
    assert torch.equal(mapped, plain)
    assert tokenizer.decode(mapped.tolist()) == text
    assert mapped.dtype == (torch.uint8 if tokenizer.vocab_size < 256 else torch.int32)
    inputs, _ = NextTokenDataset(mapped, 8)[torch.tensor([0, 3])]
    assert inputs.dtype == torch.int64


def test_a_mapped_file_of_another_vocabulary_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("abc", encoding="utf-8")
    tokenize_file(tmp_path / "a.txt", tmp_path / "a.tokens")
    with pytest.raises(ConfigError, match="another vocabulary"):
        read_corpus(tmp_path / "a.tokens", CharacterTokenizer(["xyz"]))
