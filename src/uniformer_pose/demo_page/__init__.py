"""A page in the browser to look at poses: a picture in, skeletons, heatmaps and COCO results out."""
