"""Parts that the entry scripts, the engines and the models share; nothing in here imports any of those."""
