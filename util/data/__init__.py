"""From image files to batches: folders, reading, augmentation, loading."""
