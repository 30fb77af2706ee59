"""ONNX: model.onnx with a free batch size, checked in ONNX Runtime; the attention map as a second output on request."""

import json
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from util.export.exported import Exported, Written, largest_difference, need, preprocessing
from util.maps import sources
from util.maps.attention import average_heads
from util.system.errors import InputError
from util.system.text import write_json

OPSET = 20
ONE_FILE = 1.5e9  # bytes: a larger model has its weights in a file beside, as protobuf holds 2 GB at most


class Kept:
    """The maps of all blocks of a batch, where :class:`util.maps.sources.View` expects a model that would compute them."""

    def __init__(self, maps: list[Tensor]):
        self.blocks = maps

    def attention_maps(self, _: Tensor, numbers: Iterable[int]) -> Tensor:
        return torch.stack([self.blocks[number - 1] for number in numbers], dim=1)


class Outputs(nn.Module):
    """What the ONNX model computes from ``pixel_values`` [B, 3, S, S]: logits [B, classes] and, if asked, a map [B, gh, gw].

    Both come from one pass through the encoder; rows of attention that the map does not need fall away in the export.
    """

    def __init__(self, model: nn.Module, map_source: str | None):
        super().__init__()
        self.model, self.map_source = model, map_source

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        model, maps = self.model, []
        tokens = model.embed(pixel_values)
        for block in model.blocks:
            if self.map_source:
                row = block.attn.class_token_row(block.norm1(tokens))[:, :, model.num_prefix_tokens :]
                maps.append(average_heads(row).unflatten(1, model.grid_size))
            tokens = block(tokens)
        logits = model.forward_head(model.norm(tokens))
        if not self.map_source:
            return (logits,)
        return logits, sources.map_of(sources.View(Kept(maps), pixel_values), self.map_source)


def write(exported: Exported, folder: Path, map_source: str | None = None) -> Written:
    """Write model.onnx and compare ONNX Runtime's outputs for batches of several sizes.

    Args:
        exported: the model.
        folder: of the files.
        map_source: of the second output, ``map``; None: there is none.

    Raises:
        InputError: for a map that needs gradients.
    """
    need("onnx", "onnx", "onnxruntime", "onnxscript")
    if map_source and sources.reads_head(map_source):
        raise InputError(f"--with_map {map_source} needs gradients, which ONNX has not: use last, consensus or blockN")
    if map_source:
        sources.check(map_source, len(exported.model.blocks), "--with_map")
    import onnxruntime

    outputs = ["logits" if exported.origin.outputs else "features", *(["map"] if map_source else [])]
    wrapped = Outputs(exported.model, map_source).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's about itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            wrapped,
            (exported.examples(),),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=outputs,
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch", min=1)}},
            opset_version=OPSET,
            verbose=False,
        )
    program.model.metadata_props["classes"] = json.dumps(exported.classes)
    program.model.metadata_props["preprocessing"] = json.dumps(preprocessing(exported))
    size = sum(value.numel() * value.element_size() for value in exported.encoder().values())
    program.save(str(folder / "model.onnx"), external_data=size > ONE_FILE)
    write_json(folder / "preprocessor_config.json", preprocessing(exported))

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    differences = []
    for count in (1, 2, 5):
        images = exported.examples(count)
        with torch.no_grad():
            ours = (exported.model.classify(images), *([map_of(exported, images, map_source)] if map_source else []))
        theirs = session.run(None, {"pixel_values": images.numpy()})
        differences += [largest_difference(*pair) for pair in zip(ours, map(torch.from_numpy, theirs), strict=True)]
    results = ", ".join(outputs) + ("," if len(outputs) == 1 else "")
    usage = (
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        f'{results} = session.run(None, {{"pixel_values": images}})  # [B, 3, {exported.side}, {exported.side}] float32'
    )
    return Written("onnxruntime", usage, max(differences))


def map_of(exported: Exported, images: Tensor, map_source: str) -> Tensor:
    """The map as all other parts of the project compute it."""
    return sources.map_of(sources.View(exported.model, images), map_source)
