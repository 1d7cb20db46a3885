"""The model card of a folder: README.md with the hub's front matter, and only what is known."""

from dataclasses import dataclass

NOT_MEASURED = "Not measured: no scores of these weights were recorded where this folder was written."
NOT_RECORDED = "Not recorded."

_TEMPLATE = """\
---
library_name: semires
pipeline_tag: image-segmentation
tags:
- referring-expression-segmentation
- semires
---

# {title}

{about}

## Use

```sh
semires predict photo.jpg "left girl in red" --model FOLDER
```

```python
from semires.stages.train.models import ResModel

model = ResModel.from_pretrained("FOLDER")  # or this repository's name; in evaluation mode, with model.tokenizer
```

Images are {image_size} x {image_size} pixels, normalised with ImageNet's statistics; the logits have two channels,
background and referent.

## What was measured

{measured}

## How it was made

{made}
"""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model card says beside how to use the model; each is Markdown."""

    title: str
    about: str
    measured: str = NOT_MEASURED
    made: str = NOT_RECORDED


def model_card(facts: CardFacts, image_size: int) -> str:
    """The text of README.md. image_size: side of the model's images."""
    return _TEMPLATE.format(
        title=facts.title, about=facts.about, measured=facts.measured, made=facts.made, image_size=image_size
    )
