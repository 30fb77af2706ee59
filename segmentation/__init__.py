"""Segmentation with a pre-trained MSMAE encoder."""
