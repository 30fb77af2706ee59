"""safetensors: all parameters by MAE's names, and in the file's metadata what the tensors do not tell."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from util.export.exported import WEIGHTS, Exported, Written, preprocessing
from util.system.text import write_json


def write(exported: Exported, folder: Path) -> Written:
    """Write a file that all scripts here take as weights (docs/weights.md), and compare its tensors."""
    state = {name: value.contiguous() for name, value in exported.model.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata=exported.metadata())
    write_json(folder / "preprocessor_config.json", preprocessing(exported))
    again = load_file(folder / WEIGHTS)
    difference = max((again[name] - value).abs().max().item() for name, value in state.items())
    usage = f'from models_msmae import load_model\n\nmodel = load_model("{WEIGHTS}")'
    return Written("the MSMAE project", usage, difference)
