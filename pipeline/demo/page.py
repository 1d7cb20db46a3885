"""The demo's page (Gradio): a picture, an expression and thresholds on the left, three pictures on the right.

It loads nothing from elsewhere and sends nothing anywhere: no fonts, no statistics, no share link.
"""

import os
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semires.pipeline.demo.showing import Showing
from semires.stages.data.errors import InputError
from semires.stages.data.refshapes.expressions import draw_expressions
from semires.stages.data.refshapes.scene import make_scene
from semires.stages.train.matching.config import MatchConfig, Strategy

if TYPE_CHECKING:
    import gradio

_TITLE = "semires"
_NUM_EXAMPLES = 6
_EXAMPLES_SEED = 1717
_MAX_UPLOAD = "64mb"
_SHOWN = {"mask": "Mask", "refined": "Mask made of candidates", "candidates": "Candidates"}


def check_gradio() -> None:
    """InputError where Gradio is not installed."""
    if find_spec("gradio") is None:
        raise InputError("expected the package gradio, found none; pip install 'semires[demo]'")


def build_page(showing: Showing, what: str, examples: Sequence[tuple[str, str]] = ()) -> "gradio.Blocks":
    """The page. what: which model answers, in a line of plain text. examples: image files and expressions."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    default = MatchConfig()

    def show(
        image: NDArray[np.uint8] | None,
        expression: str,
        threshold: float,
        strategy: Strategy,
        iou_rate: float,
        inter: float,
    ) -> tuple[Image.Image, Image.Image, Image.Image, str]:
        try:
            config = MatchConfig(strategy=strategy, iou_rate=iou_rate, inter1=inter, inter2=inter)
            shown = showing.show(image, expression, threshold=threshold, config=config)
        except InputError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None
        return shown.mask, shown.candidates, shown.refined, shown.words

    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {_TITLE}\nWhat an expression means in a picture, and what candidate masks make of it.")
        gr.Textbox(what, label="Model", interactive=False)
        with gr.Row():
            with gr.Column():
                image = gr.Image(label="Picture", sources=["upload", "clipboard"], elem_id="picture")
                expression = gr.Textbox(
                    label="Expression", placeholder="small red house", elem_id="expression", max_lines=1
                )
                button = gr.Button("Segment", variant="primary", elem_id="segment")
                threshold = gr.Slider(
                    0.05,
                    0.95,
                    0.5,
                    step=0.05,
                    label="Probability from which a pixel is in it",
                    elem_id="threshold",
                )
                strategy = gr.Radio(
                    list(get_args(Strategy)), value=default.strategy, label="Matching (the paper's: cpi-u)"
                )
                iou_rate = gr.Slider(0, 1, default.iou_rate, step=0.05, label="IoU that a candidate must exceed (iom)")
                inter = gr.Slider(
                    0,
                    1,
                    default.inter1,
                    step=0.05,
                    label="Covered share that a candidate must exceed (cpi)",
                )
            with gr.Column():
                mask, refined, candidates = (
                    gr.Image(
                        label=label, format="png", buttons=["download", "fullscreen"], elem_id=name, interactive=False
                    )
                    for name, label in _SHOWN.items()
                )
                words = gr.Textbox(label="In words", lines=3, elem_id="words", interactive=False)
        inputs = [image, expression, threshold, strategy, iou_rate, inter]
        outputs = [mask, candidates, refined, words]
        gr.on([button.click, expression.submit], show, inputs, outputs, api_name="segment")
        gr.on(
            [threshold.release, strategy.change, iou_rate.release, inter.release],
            # Before the first answer there is nothing to change.
            lambda *values: show(*values) if values[0] is not None and values[1].strip() else (None, None, None, ""),
            inputs,
            outputs,
            api_name=False,
        )
        if examples:
            gr.Examples([list(example) for example in examples], [image, expression], label="Examples (RefShapes)")
    return page


def launch(page: "gradio.Blocks", host: str, port: int | None) -> str:
    """Serve the page in threads of this process; returns its address. InputError where the port is taken."""
    import gradio as gr

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=_MAX_UPLOAD,
            theme=theme,
        )
    except OSError as error:
        what = "a free port from 7860 on" if port is None else f"port {port} free"
        raise InputError(f"--port: expected {what} at {host}, found none; give another, or leave it out") from error
    return address


def write_examples(folder: Path) -> list[tuple[str, str]]:
    """Draw a few scenes of RefShapes, which no model was trained on, into `folder`: files, and an expression each."""
    rng = np.random.default_rng(_EXAMPLES_SEED)
    examples = []
    for number in range(_NUM_EXAMPLES):
        scene = make_scene("testA" if number % 2 else "val", _EXAMPLES_SEED, number)
        path = folder / f"scene-{number + 1}.png"
        Image.fromarray(scene.image).save(path)
        texts = [draw_expressions(rng, scene.objects, index, most=1) for index in range(len(scene.objects))]
        examples.append((str(path), next(drawn[0][1] for drawn in texts if drawn)))
    return examples
