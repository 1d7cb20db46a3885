import pickle
import random
import string
from functools import partial

import pytest
import torch
from transformers import BertTokenizer

from semires.stages.data.errors import InputError
from semires.stages.train.models.tokenization import SPECIAL_TOKENS, Tokenizer, build_vocab

torch.set_num_threads(1)

WORDS = ["the", "red", "circle", "left", "The RED square!", "t-shirt"]


@pytest.fixture
def vocab_path(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(build_vocab(WORDS)) + "\n", encoding="utf-8")
    return path


def test_build_vocab__order_and_content():
    vocab = build_vocab(WORDS)
    assert tuple(vocab[:5]) == SPECIAL_TOKENS
    assert vocab[-6:] == ["circle", "left", "red", "shirt", "square", "the"]
    assert len(set(vocab)) == len(vocab)
    assert set(string.ascii_lowercase + string.digits + string.punctuation) <= set(vocab)
    assert build_vocab(reversed(WORDS)) == vocab


def test_call__pads_and_masks(vocab_path):
    vocab = build_vocab(WORDS)
    tokenizer = Tokenizer.from_vocab(vocab_path)
    ids, mask = tokenizer(["The red CIRCLE", ""])
    assert ids.shape == mask.shape == (2, 20)
    assert ids.dtype == mask.dtype == torch.int64
    assert [vocab[i] for i in ids[0, :6]] == ["[CLS]", "the", "red", "circle", "[SEP]", "[PAD]"]
    assert mask.sum(1).tolist() == [5, 2]
    assert (ids[mask == 0] == vocab.index("[PAD]")).all()
    assert tokenizer.vocab_size == len(vocab)


def test_call__long_expression_keeps_its_end_token(vocab_path):
    vocab = build_vocab(WORDS)
    tokenizer = Tokenizer.from_vocab(vocab_path, max_tokens=6)
    ids, mask = tokenizer(["the red circle left the red circle"])
    assert [vocab[i] for i in ids[0]] == ["[CLS]", "the", "red", "circle", "left", "[SEP]"]
    assert mask.all()


def as_lavt(encode, text, max_tokens):
    """Ids and mask as LAVT's loader makes them."""
    attention_mask = [0] * max_tokens
    padded_input_ids = [0] * max_tokens
    input_ids = encode(text=text, add_special_tokens=True)
    input_ids = input_ids[:max_tokens]
    padded_input_ids[: len(input_ids)] = input_ids
    attention_mask[: len(input_ids)] = [1] * len(input_ids)
    return padded_input_ids, attention_mask


def test_call__without_keep_sep_as_lavt(vocab_path):
    vocab = build_vocab(WORDS)
    encode = BertTokenizer(vocab={token: i for i, token in enumerate(vocab)}).encode
    texts = ["", *("the red circle " * n + "x" * m for n in range(4) for m in range(4))]
    for max_tokens in (3, 6, 20):
        plain = Tokenizer.from_vocab(vocab_path, max_tokens=max_tokens, keep_sep=False)
        kept = Tokenizer.from_vocab(vocab_path, max_tokens=max_tokens)
        for tokenizer in (plain, pickle.loads(pickle.dumps(plain))):
            ids, mask = tokenizer(texts)
            for row, text in enumerate(texts):
                assert (ids[row].tolist(), mask[row].tolist()) == as_lavt(encode, text, max_tokens)
        # Only rows that are too long differ, and these in their last token.
        other, _ = kept(texts)
        differs = torch.tensor([len(encode(text)) > max_tokens for text in texts])
        assert torch.equal((ids != other).any(dim=1), differs)
        assert torch.equal(ids[:, :-1], other[:, :-1])
        assert (other[differs, -1] == vocab.index("[SEP]")).all()


@pytest.mark.parametrize(("keep_sep", "num_seen"), [(True, 4), (False, 5)])
def test_lost__is_what_the_rows_lack(vocab_path, keep_sep, num_seen):
    tokenizer = Tokenizer.from_vocab(vocab_path, max_tokens=6, keep_sep=keep_sep)
    assert tokenizer.lost("the red circle left") == (0, 0)
    assert tokenizer.lost("the red circle left the red") == (6 - num_seen, 0)
    assert tokenizer.lost("左 red circle left the 右") == (6 - num_seen, 1)  # one of the two unknown words is cut away
    ids, _ = tokenizer(["the red circle left the red"])
    assert (ids > 4).sum() == num_seen  # those that are no special tokens
    assert tokenizer.lost("") == (0, 0)


def test_call__no_expressions(vocab_path):
    ids, mask = Tokenizer.from_vocab(vocab_path)([])
    assert ids.shape == mask.shape == (0, 20)


def test_call__english_text_has_no_unknowns(vocab_path):
    tokenizer = Tokenizer.from_vocab(vocab_path, max_tokens=64)
    unknown = SPECIAL_TOKENS.index("[UNK]")
    rng = random.Random(0)
    texts = ["".join(rng.choices(string.printable, k=40)) for _ in range(50)]
    texts += ["the café’s “naïve” cat — 2nd from left…", "zebra-crossing's man_in_black (#3)"]
    ids, _ = tokenizer(texts)
    assert not (ids == unknown).any()
    assert tokenizer.tokens("Red ox") == ["red", "o", "##x"]


def test_tokenizer__pickles(vocab_path):
    tokenizer = Tokenizer.from_vocab(vocab_path)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.vocab_size == tokenizer.vocab_size
    for a, b in zip(copy(["the red circle"]), tokenizer(["the red circle"]), strict=True):
        assert torch.equal(a, b)


def test_from_pretrained__equals_from_vocab(vocab_path, tmp_path):
    own = Tokenizer.from_vocab(vocab_path)
    folder = tmp_path / "bert"
    BertTokenizer(vocab={token: i for i, token in enumerate(build_vocab(WORDS))}).save_pretrained(folder)
    other = Tokenizer.from_pretrained(folder)
    for a, b in zip(own(["The red ox, left!"]), other(["The red ox, left!"]), strict=True):
        assert torch.equal(a, b)
    short = [
        make(max_tokens=4, keep_sep=False)
        for make in (partial(Tokenizer.from_pretrained, folder), partial(Tokenizer.from_vocab, vocab_path))
    ]
    assert torch.equal(*(tokenizer(["the red circle left"])[0] for tokenizer in short))
    assert short[0](["the red circle left"])[0][0, -1] == build_vocab(WORDS).index("circle")


def test_from_vocab__bad_file(tmp_path):
    path = tmp_path / "vocab.txt"
    with pytest.raises(InputError, match="expected a vocabulary file"):
        Tokenizer.from_vocab(path)
    path.write_text("the\nred\n")
    with pytest.raises(InputError, match=r"found no \[PAD\]"):
        Tokenizer.from_vocab(path)
    path.write_text("\n".join([*SPECIAL_TOKENS, "red", "red"]))
    with pytest.raises(InputError, match="'red' twice"):
        Tokenizer.from_vocab(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        Tokenizer.from_vocab(path)


def test_from_pretrained__no_vocabulary(tmp_path):
    with pytest.raises(InputError, match="expected a BERT"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="expected a BERT"):
        Tokenizer.from_pretrained(tmp_path / "absent")


def test_init__too_few_tokens(vocab_path):
    with pytest.raises(InputError, match="max_tokens"):
        Tokenizer.from_vocab(vocab_path, max_tokens=2)
