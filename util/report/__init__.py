"""Runs as one HTML page (``python -m util.report``)."""
