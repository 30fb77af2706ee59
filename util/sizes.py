"""The sizes of the models, by name."""

ENCODERS = {  # micro is for small images and quick studies: what the demo and the tests use
    "vit_micro_patch8": {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4},
    "vit_tiny_patch16": {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small_patch16": {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch16": {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch16": {"patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_huge_patch14": {"patch_size": 14, "embed_dim": 1280, "depth": 32, "num_heads": 16},
}
DECODERS = {  # of small encoders smaller than MAE's, so that the decoder does not outweigh them
    "vit_micro_patch8": {"decoder_embed_dim": 96, "decoder_depth": 2, "decoder_num_heads": 4},
    "vit_tiny_patch16": {"decoder_embed_dim": 192, "decoder_depth": 4, "decoder_num_heads": 6},
    "vit_small_patch16": {"decoder_embed_dim": 256, "decoder_depth": 4, "decoder_num_heads": 8},
}
AUTOENCODERS = {f"msmae_{name}": {**ENCODERS[name], **DECODERS.get(name, {})} for name in ENCODERS}
