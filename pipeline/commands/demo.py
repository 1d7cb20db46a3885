"""`semires demo`: a page to try a model on."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands import completion
from semires.pipeline.commands.options import Device, require_run


def demo(
    run: Annotated[Path | None, typer.Option(help="Folder of a run. Default: the shipped model.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="In place of --run: folder of a model (semires convert), or its hub name. Default: none."),
    ] = None,
    sam: Annotated[
        str,
        typer.Option(
            help="What proposes candidates, as of cache-sam. The tiny one knows drawn shapes only.",
            autocompletion=completion.sam,
        ),
    ] = "tiny",
    sam_checkpoint: Annotated[
        Path | None, typer.Option(help="Weights of --sam vit_h, vit_l or vit_b. Default: none.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; another than this machine's own lets others in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen at. Default: the first free one from 7860.")
    ] = None,
    device: Device = None,
) -> None:
    """A page in the browser: drop a picture, type an expression, see mask, candidates and what they make of it.

    Needs Gradio, the extra "demo" of semires (README). It is served to this machine alone, until Ctrl-C.
    """
    import tempfile

    from semires.stages.cache_sam.models.naming import check_sam

    if run is not None:
        require_run(run)
    check_sam(sam, sam_checkpoint)

    from semires.pipeline.demo.page import build_page, check_gradio, launch, write_examples
    from semires.pipeline.demo.showing import Showing
    from semires.pipeline.predicting.predictor import SHIPPED, Predictor
    from semires.pipeline.predicting.snapping import sam_candidates
    from semires.pipeline.progress import console
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.data.errors import printable

    check_gradio()
    chosen_device = choose_device(device)
    predictor = Predictor.load(run=run, model=model, device=chosen_device)
    what = SHIPPED if run is None and model is None else printable(str(run or model))
    showing = Showing(predictor, sam_candidates(sam, sam_checkpoint, chosen_device))
    with tempfile.TemporaryDirectory(prefix="semires-demo-") as folder:
        # Of a model of one's own nobody knows whether it has seen such scenes.
        page = build_page(showing, f"{what}; candidates of SAM {printable(sam)}", write_examples(Path(folder)))
        address = launch(page, host, port)
        console.print(f"{address}  (Ctrl-C ends it)", soft_wrap=True)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)
