"""Data: catalogue, download, splits, synthetic scenes, augmentation, loaders."""
