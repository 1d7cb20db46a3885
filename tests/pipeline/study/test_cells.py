import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.recipes import train_recipe
from semires.pipeline.study.cells import RunSpec, all_specs, study_runs
from semires.pipeline.study.description import Row, Study, parse_study
from semires.stages.data.errors import InputError
from semires.stages.train.config import FREE, TrainConfig
from semires.stages.train.run import check_burn_in
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
METHODS = ("supervised", "baseline", "semires", "semires-cc")


def study_of(*rows: dict[str, Any], **content: Any) -> Study:
    return parse_study("mine", {"splits": ["refshapes"], **content, "rows": list(rows)})


def table1(**content: Any) -> Study:
    return study_of(*({"name": method, "method": method} for method in METHODS), **content)


def only_spec(study: Study) -> RunSpec:
    (run,) = study_runs(study, CPU)
    return run.spec


def test_study_runs__methods_of_a_seed_share_their_burn_in() -> None:
    runs = study_runs(table1(splits=["refcoco"], shares=[0.005, 0.01], seeds=2), CPU)
    assert len(runs) == len({run.spec.address for run in runs}) == 2 * 2 * 4
    for start in range(0, len(runs), 4):
        supervised, *others = (run.spec for run in runs[start : start + 4])
        assert supervised.burn_in is None
        assert [spec.config.method for spec in others] == list(METHODS[1:])
        assert {spec.burn_in for spec in others} == {supervised}
        # They differ in their method alone.
        assert len({dataclasses.replace(spec.config, method="semires") for spec in others}) == 1
    assert len(all_specs(runs)) == len(runs)


def test_study_runs__supervised_runs_are_accepted_as_burn_in(tmp_path: Path) -> None:
    supervised, *others = study_runs(table1(splits=["refcocog"], shares=[0.02]), CPU)
    folder = RunFolder(tmp_path / "supervised")
    folder.start(supervised.spec.config, [1])
    folder.finish({})
    for run in others:
        check_burn_in(folder, run.spec.config)


def test_study_runs__every_seed_has_the_published_labeled_images() -> None:
    runs = study_runs(table1(splits=["refcoco+"], seeds=3), CPU)
    configs = [run.spec.config for run in runs[::4]]
    assert [(config.seed, config.labeled_seed) for config in configs] == [(n, 0) for n in range(3)]
    # The first seed's runs have the paper's settings.
    assert runs[2].spec.config == TrainConfig(split="refcoco+").resolved(CPU)


def test_study_runs__what_only_mutual_learning_has_leaves_the_burn_in_alone() -> None:
    plain, changed = study_runs(
        study_of({"name": "a"}, {"name": "b", "mutual": {"views": {"jitter_probability": 0.0}, "blur_labeled": False}}),
        CPU,
    )
    assert plain.spec.burn_in == changed.spec.burn_in
    assert changed.spec.config.views == dataclasses.replace(plain.spec.config.views, jitter_probability=0.0)
    assert plain.spec.address != changed.spec.address


def test_study_runs__settings_from_the_general_to_the_special() -> None:
    study = study_of(
        {"name": "a", "alpha": 0.9, "match": {"inter1": 0.6}, "only": {"refshapes": {"match": {"strategy": "cpi"}}}},
        splits=["refshapes", "refcoco"],
        settings={"alpha": 0.5, "lambda_sup": 2, "match": {"inter2": 0.4}},
    )
    ours, theirs = (run.spec.config for run in study_runs(study, CPU, {"lambda_unsup": 3.0}))
    assert (ours.alpha, ours.lambda_sup, ours.lambda_unsup, theirs.alpha) == (0.9, 2.0, 3.0, 0.9)
    assert (ours.match.strategy, ours.match.inter1, ours.match.inter2) == ("cpi", 0.6, 0.4)
    assert (theirs.match.strategy, theirs.match.inter1) == ("cpi-u", 0.6)


def test_study_runs__a_row_with_its_own_share_is_one_cell() -> None:
    runs = study_runs(study_of({"name": "a"}, {"name": "b", "labeled": 0.5}, shares=[0.1, 0.2]), CPU)
    assert [(run.row.name, run.share) for run in runs] == [("a", 0.1), ("b", 0.5), ("a", 0.2)]


def test_study_runs__public_code_by_name() -> None:
    spec = only_spec(study_of({"name": "a", "recipe": "public-code", "match": {"strategy": "iom"}}, splits=["refcoco"]))
    assert spec.config == train_recipe("refcoco", "public-code", strategy="iom").resolved(CPU)


def test_study_runs__a_model_starts_from_its_own_recipe() -> None:
    spec = only_spec(study_of({"name": "a", "model": "clipseg-nano"}, splits=["refshapes"]))
    assert spec.config == train_recipe("refshapes", model="clipseg-nano").resolved(CPU)
    assert spec.config.trunk_rate == 0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"colour": 1}, "mine, row 'a': expected a setting .*, found 'colour'"),
        ({"seed": 1}, "found 'seed'"),
        ({"split": "refcoco"}, "found 'split'"),
        ({"match": {"colour": 1}}, "mine, row 'a': match: expected a setting .strategy, .*found 'colour'"),
        ({"match": "iom"}, "mine, row 'a': match: expected a table of settings, found 'iom'"),
        ({"alpha": "high"}, "mine, row 'a': alpha: expected a number, found 'high'"),
        ({"alpha": 2.0}, "mine, row 'a': alpha: expected a share from 0 to 1"),
        ({"method": "magic"}, "mine, row 'a': method: expected one of supervised"),
        ({"mutual": {"colour": 1}}, "mine, row 'a', mutual: expected a setting"),
        ({"method": "supervised", "mutual": {"alpha": 1}}, "expected a method with mutual learning, found supervised"),
        ({"recipe": "magic"}, "--recipe: expected one of"),
        *(
            ({"mutual": {name: value}}, f"mutual: expected settings of mutual learning alone, found '{name}'")
            for name, value in {"labeled": 0.5, "model": "nano", "method": "supervised", "image_size": 64}.items()
        ),
    ],
)
def test_study_runs__refuses_in_one_line(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        study_runs(study_of({"name": "a", **row}), CPU)
    assert "\n" not in str(caught.value)


def test_study_runs__options_choose_the_recipe_too() -> None:
    """`--set model=clipseg-nano` trained the vision encoder, which its recipe leaves as it is."""
    (run,) = study_runs(study_of({"name": "a"}), CPU, {"model": "clipseg-nano"})
    assert run.spec == only_spec(study_of({"name": "a", "model": "clipseg-nano"}))
    (run,) = study_runs(study_of({"name": "a"}), CPU, {"recipe": "public-code", "match": {"strategy": "iom"}})
    assert run.spec.config == train_recipe("refshapes", "public-code", strategy="iom").resolved(CPU)


def test_study_runs__shares_are_no_setting_of_an_option() -> None:
    """The columns said the study's shares, whatever the runs had."""
    with pytest.raises(InputError, match="--set labeled: expected shares as --share"):
        study_runs(table1(shares=[0.05]), CPU, {"labeled": 0.1})


def test_study_runs__what_a_method_does_not_read_makes_no_other_run() -> None:
    plain = study_runs(table1(), CPU)
    changes = {"match": {"strategy": "iom"}, "pwa": False, "confidence_filter": 0.05, "group": {"expressions": "none"}}
    changed = study_runs(table1(settings=changes), CPU)
    addresses = [
        (old.spec.address == new.spec.address, new.spec.config) for old, new in zip(plain, changed, strict=True)
    ]
    assert [same for same, _ in addresses] == [True, False, False, False]
    baseline, semires, grouped = (config for _, config in addresses[1:])
    assert (baseline.match, baseline.confidence_filter) == (plain[1].spec.config.match, 0.05)
    assert (semires.match.strategy, semires.confidence_filter, semires.group) == ("iom", 0, plain[2].spec.config.group)
    assert grouped.group.expressions is None


def test_study_runs__a_gpu_that_is_not_here_cannot_be_asked() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    cuda = torch.device("cuda")
    with pytest.raises(InputError, match="mine: precision: expected bf16 or fp32, found auto, and no GPU here"):
        study_runs(table1(), cuda)
    assert {run.spec.config.precision for run in study_runs(table1(), cuda, {"precision": "bf16"})} == {"bf16"}


def test_address__is_of_all_that_decides_and_of_nothing_else() -> None:
    spec = only_spec(study_of({"name": "a"}))
    for free, value in {"num_workers": 3, "gradient_checkpointing": True, "save_minutes": 1.0}.items():
        assert free in FREE
        assert (
            dataclasses.replace(spec, config=dataclasses.replace(spec.config, **{free: value})).address == spec.address
        )
    assert spec.burn_in is not None
    others = [
        dataclasses.replace(spec, config=dataclasses.replace(spec.config, alpha=0.5)),
        dataclasses.replace(spec, config=dataclasses.replace(spec.config, seed=1)),
        dataclasses.replace(spec, burn_in=RunSpec(config=dataclasses.replace(spec.burn_in.config, burn_in_epochs=1))),
    ]
    assert len({spec.address, *(other.address for other in others)}) == 4


def test_address__stays() -> None:
    """Where this fails finished runs would be repeated: a new setting belongs into `cells.YOUNGER`."""
    paper = RunSpec(
        config=TrainConfig(precision="fp32"), burn_in=RunSpec(config=TrainConfig(precision="fp32").burn_in())
    )
    assert paper.address == "refcoco-0.01-semires-cpi-u-seed0-d9b148d113"
    shapes = RunSpec(config=dataclasses.replace(train_recipe("refshapes"), precision="fp32").burn_in())
    assert shapes.address == "refshapes-0.05-supervised-seed0-fc1dd4cda6"


def test_address__own_data_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    one, other = (
        only_spec(study_of({"name": "a"}, splits=[split])) for split in ("my.jsonl", str(tmp_path / "my.jsonl"))
    )
    assert one.address == other.address
    assert one.address.startswith("my-1-semires-cpi-u-seed0-")
    (tmp_path / "my.jsonl").write_text("{ }\n")
    assert one.address != only_spec(study_of({"name": "a"}, splits=["my.jsonl"])).address


def test_address__own_data_elsewhere_has_other_images(tmp_path: Path) -> None:
    """Images lie beside the file; and the folder of the run at the one path refused the other."""
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my.jsonl").write_text("{}\n")
        found.append(only_spec(study_of({"name": "a"}, splits=[str(tmp_path / folder / "my.jsonl")])).address)
    assert found[0] != found[1]


def test_address__weights_are_known_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def address(bert: str) -> str:
        return only_spec(study_of({"name": "a", "bert": bert}, splits=["refcoco"])).address

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bert" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"one")
    first = address("bert")
    assert address("./bert") == address(str(file.parent)) == first
    file.write_bytes(b"other")
    assert address("bert") != first
    assert address("a/hub-name") not in (first, address("bert"))


def test_address__a_list_of_labeled_images_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1\n")
    first = only_spec(study_of({"name": "a", "labeled_list": str(path)})).address
    path.write_text("2\n")
    assert only_spec(study_of({"name": "a", "labeled_list": str(path)})).address != first


def test_all_specs__burn_ins_come_first_and_are_rows_too() -> None:
    runs = study_runs(table1(), CPU)
    found = all_specs(runs)
    assert list(found) == [run.spec for run in runs]
    assert list(found.values()) == [f"{method}, refshapes 5%, seed 0" for method in METHODS]
    (alone,) = study_runs(study_of({"name": "a"}), CPU)
    assert list(all_specs((alone,)).values()) == ["burn-in, refshapes 5%, seed 0", "a, refshapes 5%, seed 0"]


def test_row__has_settings_of_its_own() -> None:
    assert Row(name="a") != Row(name="a", settings={"alpha": 0.5})


def test_all_specs__burn_ins_of_other_settings_have_names_of_their_own() -> None:
    rows = [{"name": "a", "burn_in_epochs": 1}, {"name": "b", "burn_in_epochs": 2}]
    specs = all_specs(study_runs(study_of(*rows), CPU))
    assert len(specs) == len(set(specs.values())) == 4
    for spec, label in specs.items():
        if spec.burn_in is None:
            assert label == f"burn-in, refshapes 5%, seed 0 ({spec.address[-10:]})"
