"""A page that trains a small model on your images with cross-entropy and with CLCE.

pip install -r requirements.txt && python app.py
"""

import contextlib
import html
import os
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image
from two_losses import BATCH, MODEL, STEPS, Trained, in_words, report, split, train_both
from uploaded_images import read_folder, read_zip

from clce_hf.data.class_counts import describe
from clce_hf.data.transforms import UnreadableImageError
from clce_hf.errors import UserError

ABOUT = f"""# CLCE or cross-entropy, on your images?

Upload some photographs, one folder for each class: **about 10 classes of 10 images** are learned
in two minutes. The last block of a pretrained model is trained twice, for {STEPS} steps of
{BATCH} images: with cross-entropy, and with cross-entropy and CLCE's contrastive term. Weights,
images, their order, learning rate and the start of the head, which is the class means, are the same
for both. A share of 30 % of each class is held out to test on.

Images stay in memory for this visit, an hour at most. Do not upload what is private.
"""

NAMES_OF_FOLDERS = """
() => document.addEventListener("change", (event) => {
  const input = event.target;
  if (!input.webkitdirectory) return;
  const named = new DataTransfer();  // an upload keeps the name of a file, but not of its folders
  [...input.files].filter((file) => !/\\/[._]/.test(file.webkitRelativePath)).slice(0, 900)
    .forEach((file, i) => {
      const [above, folder, name] = ["", ...file.webkitRelativePath.split("/")].slice(-3);
      const folders = `${above.replaceAll("__", "_")}__${folder}`;
      named.items.add(new File([file], `${folders}__${i}.${name.split(".").pop()}`));
    });
  input.files = named.files;
}, true)
"""


PROGRESS = gr.Progress()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Show in the page, until it is closed, what a visitor can mend."""
    try:
        yield
    except (UserError, UnreadableImageError, ValueError) as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def upload(files: str | list[str]) -> tuple[Any, str, None]:
    """Read what was uploaded, say what it is or why it does not do, and keep no file of it."""
    folder = files if isinstance(files, list) else None
    try:
        images, left_out = read_folder(folder) if folder else read_zip(str(files))
    except UserError as error:
        return None, f"⚠️ {error}", None
    finally:
        for file in folder or [str(files)]:
            os.remove(file)
    train_size, test_size = map(len, split(images))
    found = f"**{describe(images)}.** {train_size} to train on and {test_size} to test on."
    return images, found + (f" Left out: {left_out} other files." if left_out else ""), None


def train(images: Any, name: str, rate: float, progress: gr.Progress = PROGRESS) -> list[Any]:
    """Train twice, and show what came of it."""
    with told():
        if images is None:
            raise UserError("There are no images yet: upload a zip or a folder first.")
        if not rate or not 0 < rate < 0.1:
            raise UserError("The learning rate has to lie between 0 and 0.1: 3e-4 suits a ViT.")
        start = time.perf_counter()
        trained = train_both(images, name.strip(), rate, progress)
        maps, page = report(trained, images)
    took = f"\n\nBoth trainings took {time.perf_counter() - start:.0f} seconds."
    # In a frame without a host of its own, which reads nothing of this page.
    frame = f'<iframe sandbox="allow-scripts" title="Report" srcdoc="{html.escape(page)}"></iframe>'
    return [trained, in_words(trained) + took, *maps, frame, gr.Column(visible=True)]


def find(image: Image.Image | None, trained: list[Trained] | None) -> list[Any]:
    """Show the training images that are nearest to another image, by each model."""
    if image is None or trained is None:
        return [[], []]
    shown = []
    with told():
        for one in trained:
            predicted, nearest = one.nearest(image)
            names = one.known.features["labels"].names
            found = [
                (row["image"], names[row["labels"]]) for row in map(one.known.__getitem__, nearest)
            ]
            label = f"{one.run.method}: {names[predicted]}"
            shown.append(gr.Gallery(found, label=label))
    return shown


def page() -> gr.Blocks:
    """Lay out the page."""
    with gr.Blocks(title="CLCE or cross-entropy?", delete_cache=(600, 3600)) as blocks:
        gr.Markdown(ABOUT)
        images = gr.State(time_to_live=3600)
        trained = gr.State(time_to_live=3600)
        with gr.Row():
            zipped = gr.File(
                label="A zip: cat/1.jpg, dog/1.jpg, ...", file_types=[".zip"], height=150
            )
            folder = gr.File(
                label="Or a folder of folders: click", file_count="directory", height=150
            )
        found = gr.Markdown(elem_id="found")
        with gr.Row():
            name = gr.Textbox(
                MODEL, label="Model of the Hub", info="30 M parameters at most, for two minutes."
            )
            rate = gr.Number(
                3e-4,
                label="Learning rate of both",
                info="3e-4 for a ViT, 1e-3 for a convolutional network. It matters much.",
            )
        start = gr.Button("Train with both losses", variant="primary", elem_id="train")
        words = gr.Markdown(elem_id="words")
        with gr.Column(visible=False) as results:
            gr.Markdown(
                "## The test images, as both models see them\n\nEach dot is an image, placed by "
                "its embedding; one projection of both, by cosine distance."
            )
            with gr.Row(elem_id="maps"):
                maps = [gr.Image(label=one, buttons=[], format="png") for one in ("CE", "CLCE")]
            gr.Markdown("## What is nearest to an image of yours?")
            query = gr.Image(type="pil", sources="upload", label="Any image", elem_id="query")
            with gr.Row():
                row: Any = {"columns": 5, "height": 160, "buttons": []}
                nearest = [
                    gr.Gallery(label=one, elem_id=f"near{one}", **row) for one in ("CE", "CLCE")
                ]
            with gr.Accordion("The whole report", open=False):
                whole = gr.HTML(elem_id="report")
        for files in (zipped, folder):
            files.upload(upload, files, [images, found, files], api_visibility="private")
        outputs = [trained, words, *maps, whole, results]
        alone: Any = {"concurrency_limit": 1, "api_visibility": "private"}
        start.click(train, [images, name, rate], outputs, **alone)
        query.change(find, [query, trained], nearest, **alone)
        blocks.load(js=NAMES_OF_FOLDERS)
    return blocks.queue(max_size=10)


CSS = """
#report iframe {width: 100%; height: 80vh; border: 0}
#words th, #words td {padding: 6px; word-break: keep-all; overflow-wrap: normal}
"""

if __name__ == "__main__":
    page().launch(
        max_file_size="30mb",
        run_history=False,
        footer_links=["gradio"],
        css=CSS,
    )
