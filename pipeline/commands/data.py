"""`semires make-refshapes`: data sets that semires writes itself."""

from semires.pipeline.commands.options import Data, make_paths


def make_refshapes(data: Data = None) -> None:
    """Write RefShapes, the embedded benchmark, in the REFER format; commands that need it do so themselves."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.stage_runs import load_dataset

    paths = make_paths(data)
    with progress() as on_progress:
        dataset = load_dataset(paths, "refshapes", on_progress)
    console.print(f"{paths.data / 'refshapes'}: {len(dataset.image_ids)} images with refs, {len(dataset.refs)} refs")
