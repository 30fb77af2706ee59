"""Small models of timm and Hugging Face with random weights, and files of them."""

import torch

from models_msmae import load_model

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}  # of vit_micro_patch8, for timm
HF_SHAPE = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
HF_SHAPE |= {"image_size": 32, "patch_size": 8}
HF_DECODER = {"decoder_hidden_size": 96, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4}
HF_DECODER |= {"decoder_intermediate_size": 384}


def randomised(model, seed: int = 0):
    """A model whose parameters are all random, norms and LayerScale too, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 if "norm" in name else 0.1))
    return model.eval()


def images(count: int = 2, side: int = 32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(path, features, side: int = 32) -> float:
    """The largest difference between our features of what ``path`` names and a library's."""
    pixels = images(side=side)
    return (load_model(path).forward_features(pixels) - features(pixels)).abs().max().item()
