"""What a model knows and sees: passes over whole images, metrics, pictures."""
