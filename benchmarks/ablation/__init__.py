"""The ablation: which choice of masking, map and supervision helps (``python -m benchmarks.ablation``)."""
