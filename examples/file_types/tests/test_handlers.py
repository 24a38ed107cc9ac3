from __future__ import annotations

import base64

import pytest
from magika import Magika

from endpoints.fixtures import model as load_model
from endpoints.sniff.handler import post
from lib.answer import identify


@pytest.fixture(scope="module")
def model() -> Magika:
    return load_model()


def test_python_is_known(model: Magika) -> None:
    source = b"from __future__ import annotations\n\nimport os\n\nprint(os.environ['HOME'])\n"

    assert post(source, name="home.py", model=model) == identify(model, source, name="home.py")
    assert post(source, model=model).label == "python"


def test_png_is_known(model: Magika) -> None:
    pixel = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )

    assert post(pixel, model=model).mime_type == "image/png"
