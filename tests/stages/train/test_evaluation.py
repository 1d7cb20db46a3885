import pytest
import torch
from torch import Tensor, nn

from semires.stages.data.refer import ReferDataset
from semires.stages.train.evaluation import evaluate
from semires.stages.train.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from semires.stages.train.models.tokenization import Tokenizer
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


def test_evaluate__empty_predictions_score_nothing(val: RefSamples) -> None:
    class Nothing(nn.Module):
        def forward(self, images: Tensor, *_: Tensor) -> Tensor:
            return torch.zeros(len(images), 2, SIZE, SIZE)  # a tie is background

    scores = evaluate(Nothing(), val, CPU)
    assert (scores.oiou, scores.miou) == (0.0, 0.0)
    assert set(scores.precision.values()) == {0.0}
