from pathlib import Path

import pytest

from semires.stages.data.errors import InputError
from semires.stages.train.models import vocabularies
from semires.stages.train.models.tokenization import build_vocab
from semires.stages.train.models.vocabularies import find_tokenizer


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(build_vocab(["photograph"])) + "\n")
    return folder


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's cache holds."""
    monkeypatch.setattr(vocabularies, "try_to_load_from_cache", lambda source, name: None)


def test_find_tokenizer__berts_where_it_is(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, folder in ((str(bert), tmp_path / "none"), (None, bert)):
        tokenizer, whose = find_tokenizer(given, folder)
        assert tokenizer.tokens("photograph") == ["photograph"]
        assert tokenizer.max_tokens == 20
        assert "BERT's" in whose
        assert str(bert) in whose
    monkeypatch.setattr(vocabularies, "try_to_load_from_cache", lambda source, name: str(bert / name))
    assert find_tokenizer(None, tmp_path / "none")[1] == f"BERT's, in {bert}"


def test_find_tokenizer__nanos_else(bert: Path, tmp_path: Path) -> None:
    tokenizer, whose = find_tokenizer(None, tmp_path / "none")
    assert len(tokenizer.tokens("photograph")) == 10  # spelt
    assert "BERT's vocabulary is not here" in whose
    assert find_tokenizer(None, bert, is_nano=True)[1] == "nano's"


def test_find_tokenizer__one_that_is_given_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="BERT tokenizer"):
        find_tokenizer(str(tmp_path / "nowhere"), tmp_path)
