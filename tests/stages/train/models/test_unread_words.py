import pytest

from semires.stages.data.errors import InputError
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.models.unread_words import count_unread, unread_line

LONG = "the umbrella behind the wall"  # spelt letter by letter, where RefShapes does not say a word
EXPRESSIONS = [
    "small red house left",
    LONG,
    "红色 house",
    "猫",
    "left, right!",
    "Él",
    "x" * 150,
    " ".join(["left"] * 18),
]


@pytest.fixture(params=[True, False])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", keep_sep=request.param)


def test_count_unread__as_expression_by_expression(tokenizer: Tokenizer) -> None:
    found = count_unread(tokenizer, EXPRESSIONS)
    lost = [tokenizer.lost(expression) for expression in EXPRESSIONS]
    assert found.num_expressions == len(EXPRESSIONS)
    assert found.num_cut == sum(num_cut > 0 for num_cut, _ in lost) == 1
    assert found.num_unknown == sum(num_unknown > 0 for _, num_unknown in lost) == 3
    assert found.line("refcoco, val") == (
        "refcoco, val: of 8 expressions 1 (12.5%) lose their last words, behind the model's 20 tokens, 3 (37.5%) have "
        "words that its vocabulary lacks, read as [UNK]"
    )


def test_count_unread__nothing_to_say(tokenizer: Tokenizer) -> None:
    assert count_unread(tokenizer, ["small red house left"] * 3).line("x") is None
    assert count_unread(tokenizer, []).line("x") is None


def test_count_unread__asks_about_a_word_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, tokens = [], Tokenizer.tokens

    def ask(self: Tokenizer, expression: str) -> list[str]:
        asked.append(expression)
        return tokens(self, expression)

    monkeypatch.setattr(Tokenizer, "tokens", ask)
    assert count_unread(tokenizer, ["left house", "house left", "left"] * 1000).num_expressions == 3000
    assert sorted(asked) == ["house", "left"]


def test_unread_line__of_one_expression(tokenizer: Tokenizer) -> None:
    assert unread_line(tokenizer, "small red house left") is None
    line = unread_line(tokenizer, "红色 house 猫")
    assert line == "of the expression the model's vocabulary lacks 红色, 猫: use the model's words"
    num_pieces = len(tokenizer.tokens(LONG))
    expected = f"the last {num_pieces - tokenizer.num_read} of its {num_pieces} word pieces are not read"
    assert expected in (unread_line(tokenizer, LONG) or "")


def test_tokens__half_a_character(tokenizer: Tokenizer) -> None:
    for read in (tokenizer.tokens, tokenizer.lost, lambda text: count_unread(tokenizer, [text])):
        with pytest.raises(InputError, match="expected an expression in UTF-8"):
            read("left \udcff")
