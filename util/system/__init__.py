"""Where a run takes place: folder, device, processes, seeds, signals, errors, and what it prints."""
