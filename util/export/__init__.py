"""Weights out: a checkpoint in the form that timm, Hugging Face, ONNX Runtime or safetensors read, with a model card."""
