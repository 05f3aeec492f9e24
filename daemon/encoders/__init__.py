"""Pretrained networks that turn a picture into a unit-length embedding."""
