"""Jupyter kernels in boxes: long-lived programs that a person talks to."""
