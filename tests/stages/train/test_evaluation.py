import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semires.stages.data.annotations import SharedAnnotations
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import evaluate, measure
from semires.stages.train.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.prediction import predict_logits, scaled_masks
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.reading.sampling import every_expression

SIZE = 32
CPU = torch.device("cpu")


class LeftOfWords(nn.Module):
    """Calls foreground as many columns from the left as the expression has tokens, twice over."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert not self.training
        self.seen.append(images)
        self.norm(images)
        columns = torch.arange(SIZE).expand(len(images), SIZE, SIZE)
        is_left = columns < 2 * attention_mask.sum(dim=1)[:, None, None]
        return torch.stack([torch.zeros(is_left.shape), is_left.float() * 2 - 1], dim=1)


@pytest.fixture
def val(refshapes: ReferDataset, tokenizer: Tokenizer) -> RefSamples:
    return RefSamples(refshapes, refshapes.refs_of("val"), tokenizer, SIZE)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_evaluate__every_expression_by_hand(val: RefSamples, batch_size: int) -> None:
    ious, intersections, unions = [], 0, 0
    for key in every_expression(val.num_expressions):
        sample = val[key]
        predicted = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        predicted[:, : 2 * int(sample.attention_mask.sum())] = True
        intersection, union = int((predicted & sample.mask).sum()), int((predicted | sample.mask).sum())
        intersections, unions = intersections + intersection, unions + union
        ious.append(intersection / union)
    scores = evaluate(LeftOfWords(), val, CPU, batch_size=batch_size)
    assert scores.num_samples == len(ious) > len(val)
    assert scores.oiou == pytest.approx(100 * intersections / unions)
    assert scores.miou == pytest.approx(100 * sum(ious) / len(ious))
    for threshold, value in scores.precision.items():
        assert value == pytest.approx(100 * sum(iou >= threshold for iou in ious) / len(ious))


def test_evaluate__leaves_the_models_mode_and_buffers(val: RefSamples) -> None:
    for was_training in (True, False):
        model = LeftOfWords().train(was_training)
        evaluate(model, val, CPU)
        assert model.training == was_training
        assert model.norm.training == was_training
        assert model.norm.num_batches_tracked == 0


def test_evaluate__leaves_a_module_in_evaluation_mode_that_was_in_it(val: RefSamples) -> None:
    model = LeftOfWords().train()
    model.norm.eval()
    evaluate(model, val, CPU)
    assert model.training
    assert not model.norm.training


def test_evaluate__the_model_sees_normalised_images(val: RefSamples) -> None:
    model = LeftOfWords()
    evaluate(model, val, CPU, batch_size=1)
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(model.seen[0][0], (val[0, 0].image.float() / 255 - mean) / std)


def test_evaluate__counts_expressions(val: RefSamples) -> None:
    total = len(every_expression(val.num_expressions))
    seen: list[tuple[int, int]] = []
    evaluate(LeftOfWords(), val, CPU, batch_size=4, on_progress=lambda *args: seen.append(args))
    assert seen == [(min(done, total), total) for done in range(4, total + 4, 4)]
    noted: list[tuple[int, int, str]] = []
    found = measure(LeftOfWords(), val, CPU, batch_size=total, on_progress=lambda *args: noted.append(args))
    assert 0 < found.data_wait < 1
    assert [re.sub(r"\d+\.\d", "0.0", note) for _, _, note in noted] == ["data wait 0.0%"]


def test_measure__an_image_is_read_once_and_counts_keep_their_order(
    refshapes: ReferDataset, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = refshapes.refs_of("train")
    refs = refs[::2] + refs[1::2]  # those of an image apart
    read: list[int] = []
    samples = RefSamples(refshapes, refs, tokenizer, SIZE)
    samples.keeps = False
    image = SharedAnnotations.image
    monkeypatch.setattr(SharedAnnotations, "image", lambda self, of: read.append(of.image_id) or image(self, of))
    found = measure(LeftOfWords(), samples, CPU, batch_size=3, loader=Loader(samples, num_workers=0))
    assert len(read) == len(set(read)) == len({ref.image_id for ref in refs})
    areas = [int(samples[index, 0].mask.sum()) for index in range(len(refs))]
    assert found.counts.areas.tolist() == np.repeat(areas, samples.num_expressions).tolist()
    assert (found.counts.unions >= found.counts.areas).all()
    assert found.native is None


def test_measure__native_is_what_predict_says_against_the_whole_mask(refshapes: ReferDataset) -> None:
    torch.manual_seed(0)
    model = TrainConfig(split="refshapes", model="nano").build_model(pretrained=True).eval()
    assert model.decoder.classify.bias is not None
    with torch.no_grad():
        model.decoder.classify.bias.zero_()  # so that it says something
    refs = refshapes.refs_of("val")[:3]
    samples = RefSamples(refshapes, refs, model.tokenizer, model.image_size)
    # One at a time, as predict has them: a batch of another size may round otherwise.
    found = measure(model, samples, CPU, native=True, batch_size=1)
    assert found.native is not None
    pairs = [(ref, text) for ref in refs for text in ref.raw_expressions]
    for number, (ref, text) in enumerate(pairs):
        truth = refshapes.mask(ref)
        logits = predict_logits(model, [(refshapes.image(ref.image_id), text)], CPU)
        predicted = scaled_masks(logits, *truth.shape)[0].numpy()
        assert found.native.intersections[number] == (predicted & truth).sum()
        assert found.native.unions[number] == (predicted | truth).sum()
        assert found.native.areas[number] == truth.sum() != found.counts.areas[number]
    assert found.native.intersections.sum() > 0


def test_evaluate__empty_predictions_score_nothing(val: RefSamples) -> None:
    class Nothing(nn.Module):
        def forward(self, images: Tensor, *_: Tensor) -> Tensor:
            return torch.zeros(len(images), 2, SIZE, SIZE)  # a tie is background

    scores = evaluate(Nothing(), val, CPU)
    assert (scores.oiou, scores.miou) == (0.0, 0.0)
    assert set(scores.precision.values()) == {0.0}
