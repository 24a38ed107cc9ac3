"""POST /sniff with a file as the body: `curl --data-binary @photo.png http://127.0.0.1:8888/sniff`"""

from __future__ import annotations

from magika import Magika

from flashfw import injected

from lib.answer import Answer, identify


def post(body: bytes, name: str = "", model: Magika = injected) -> Answer:
    return identify(model, body, name=name)
