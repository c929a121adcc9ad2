"""The network: normalised image -> keypoint heatmaps, as plain ``torch.nn`` modules."""
