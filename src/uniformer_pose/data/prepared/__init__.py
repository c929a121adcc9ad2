"""Images prepared for training: stored so that a crop decodes only what it shows."""
