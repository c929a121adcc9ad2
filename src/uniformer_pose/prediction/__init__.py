"""Prediction: pictures, folders and video that a person names -> poses, drawn and written."""
