"""Weights from elsewhere by MAE's names: ``sources`` reads them, ``into_model`` puts them into a model."""
