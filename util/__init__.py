"""Parts that the entry scripts, the engines and the models share; nothing in here imports any of those."""

from util.system import cores  # noqa: F401  before PyTorch loads, which reads what it sets
