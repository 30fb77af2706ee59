"""The paper's six data sets from their official downloads: read, checked, split and laid out for the scripts."""
