"""Parts that the entry scripts, the engines and the models share, and tools. Only the tools ``probe`` and ``export`` import
models."""

from util.system import threads  # noqa: F401  before PyTorch loads, which reads what it sets
