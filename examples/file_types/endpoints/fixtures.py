"""The model, built once per worker."""

from __future__ import annotations

from magika import Magika


def model() -> Magika:
    model = Magika()
    print(f"model loaded: {model.get_model_name()}")
    return model
