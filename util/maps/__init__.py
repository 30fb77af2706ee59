"""Attention maps: from a model to a map, where maps come from, the maps of a training set, and whether they find lesions."""
