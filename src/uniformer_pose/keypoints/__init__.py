"""Between keypoints and a network's output: targets, decoding, flip test, accuracy. Torch, batched, on any device."""
