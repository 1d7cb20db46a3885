"""The teacher follows the student by eq. 5 and labels without gradient."""

import pytest
import torch
from torch import Tensor, nn

from semires.stages.data.errors import InputError
from semires.stages.train.labels.teacher import EmaTeacher


class TinySegmenter(nn.Module):
    """Two logits a pixel from the image alone; a BatchNorm brings float and integer buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert input_ids.shape == attention_mask.shape
        return self.dropout(self.norm(self.conv(images)))


@pytest.fixture
def student() -> TinySegmenter:
    torch.manual_seed(0)
    return TinySegmenter()


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(torch.ones_like(tensor) * 2)


def test_init__is_an_independent_frozen_copy(student: TinySegmenter) -> None:
    teacher = EmaTeacher(student)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    disturb(student)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not teacher.model.training
    assert student.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_update__is_equation_five_from_the_first_step_on(student: TinySegmenter) -> None:
    teacher = EmaTeacher(student, alpha=0.9)
    expected = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    for _ in range(3):
        disturb(student)
        teacher.update(student)
        for name, theirs in student.state_dict().items():
            if theirs.is_floating_point():
                expected[name] = 0.9 * expected[name] + 0.1 * theirs
            else:
                expected[name] = theirs.clone()
    for name, tensor in teacher.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert int(teacher.model.norm.num_batches_tracked) == 6
    assert teacher.model.norm.running_mean.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


@pytest.mark.parametrize(("alpha", "source"), [(1.0, "teacher"), (0.0, "student")])
def test_update__alpha_at_its_ends(student: TinySegmenter, alpha: float, source: str) -> None:
    teacher = EmaTeacher(student, alpha=alpha)
    start = teacher.model.conv.weight.clone()
    disturb(student)
    teacher.update(student)
    torch.testing.assert_close(
        teacher.model.conv.weight, start if source == "teacher" else student.conv.weight.detach()
    )


def test_update__mixed_dtypes_are_averaged_each_in_its_own() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    teacher = EmaTeacher(student, alpha=0.5)
    starts = [parameter.detach().clone() for parameter in student.parameters()]
    disturb(student)
    teacher.update(student)
    for own, start in zip(teacher.model.parameters(), starts, strict=True):
        assert own.dtype == start.dtype
        torch.testing.assert_close(own, start + 1)


def test_update__follows_a_student_that_was_converted_or_replaced(student: TinySegmenter) -> None:
    teacher = EmaTeacher(student, alpha=0.0)
    teacher.update(student)
    student.double()  # parameters stay the same objects, buffers do not
    teacher.model.double()
    other = TinySegmenter().double()
    for followed in (student, other):
        disturb(followed)
        teacher.update(followed)
        expected = followed.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in teacher.model.state_dict().items())


def test_update__another_architecture_fails(student: TinySegmenter) -> None:
    with pytest.raises(ValueError, match="zip"):
        EmaTeacher(student).update(student.conv)


def test_pseudo_label__is_argmax_and_softmax(student: TinySegmenter) -> None:
    teacher = EmaTeacher(student)
    images, ids = torch.randn(3, 3, 4, 4), torch.zeros(3, 5, dtype=torch.int64)
    label, prob = teacher.pseudo_label(images, ids, ids)
    logits = teacher.model(images, ids, ids)
    torch.testing.assert_close(prob, logits.softmax(1)[:, 1])
    assert torch.equal(label, logits.argmax(1).bool())
    assert label.dtype == torch.bool
    assert label.shape == prob.shape == (3, 4, 4)
    assert not label.all()
    assert label.any()


def test_pseudo_label__probability_in_float32_or_that_of_the_model(student: TinySegmenter) -> None:
    ids = torch.zeros(1, 5, dtype=torch.int64)
    for dtype, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        _, prob = EmaTeacher(student.to(dtype)).pseudo_label(torch.randn(1, 3, 4, 4, dtype=dtype), ids, ids)
        assert prob.dtype == expected


def test_pseudo_label__may_enter_a_loss_and_leaves_no_trace(student: TinySegmenter) -> None:
    teacher = EmaTeacher(student)
    images, ids = torch.randn(2, 3, 4, 4), torch.zeros(2, 5, dtype=torch.int64)
    state = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    label, prob = teacher.pseudo_label(images, ids, ids)
    assert not prob.requires_grad
    (student(images, ids, ids)[:, 1] * prob * label).sum().backward()
    assert student.conv.weight.grad is not None
    assert all(torch.equal(state[name], tensor) for name, tensor in teacher.state_dict().items())


def test_state_dict__round_trip_with_the_student(student: TinySegmenter) -> None:
    teacher = EmaTeacher(student)
    disturb(student)
    teacher.load_state_dict(student.state_dict())
    assert torch.equal(teacher.model.conv.weight, student.conv.weight)
    student.load_state_dict(teacher.state_dict())


def test_init__rejects_alpha(student: TinySegmenter) -> None:
    with pytest.raises(InputError, match="alpha between 0 and 1"):
        EmaTeacher(student, alpha=1.5)
