"""Predicting: what a trained model makes of images and expressions, one or many, with its files."""
