"""The tokenizer of a model that is not here: BERT's where its vocabulary is at hand, without asking a network."""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from semires.stages.train.models.build import BERT_SOURCE, weights_folder
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_NANO
from semires.stages.train.models.tokenization import Tokenizer


def find_tokenizer(bert: str | None, folder: Path, *, is_nano: bool = False) -> tuple[Tokenizer, str]:
    """The tokenizer that a run would use, or the nearest at hand, and what it is in words.

    bert: a BERT's local folder or hub name, as `semires train --bert` takes it; None for BERT-base-uncased in `folder`
    or in the Hugging Face hub's cache, else nano's, which every machine has. is_nano: the run is one of nano's.
    Raises `InputError` when a `bert` that is given cannot be read.
    """
    if bert is not None:
        return Tokenizer.from_pretrained(bert, max_tokens=LAVT_BASE.max_tokens), f"BERT's, of {bert}"
    if not is_nano:
        cached = try_to_load_from_cache(BERT_SOURCE, "vocab.txt")
        places = [folder, *([Path(cached).parent] if isinstance(cached, str) else [])]
        for place in places:
            if (place / "vocab.txt").is_file():
                return Tokenizer.from_pretrained(place, max_tokens=LAVT_BASE.max_tokens), f"BERT's, in {place}"
    nano = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", max_tokens=LAVT_NANO.max_tokens)
    return nano, "nano's" if is_nano else (
        "nano's, which spells what RefShapes does not say, so that more is cut; BERT's vocabulary is not here: "
        "`semires data download bert`, or --bert"
    )
