"""Between keypoints and heatmaps: targets, decoding, flip test, accuracy. Torch, batched, on any device."""
