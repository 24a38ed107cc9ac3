"""flashfw's own Python client, or with `plain` the standard library's HTTP: from threads, as other queues' clients."""

import http.client
import json
import os
import sys
import threading
from urllib.parse import urlsplit

from load import threads

from flashfw.client import Client

URL = os.environ["ECHO_URL"]
HEADERS = {"content-type": "application/json"}


def plain(body):
    if not hasattr(own, "connection"):
        own.connection = http.client.HTTPConnection(urlsplit(URL).netloc, timeout=30)
    own.connection.request("POST", "/job", json.dumps(body), HEADERS)
    response = own.connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    return json.loads(content)


if __name__ == "__main__":
    own = threading.local()
    if sys.argv[1] == "plain":
        threads(plain)
    else:
        with Client(URL) as client:
            threads(lambda body: client.call("job", body))
