"""How fast the project is beside others, measured in one run (``python -m benchmarks.speed``)."""
