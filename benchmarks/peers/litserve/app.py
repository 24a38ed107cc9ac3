"""LitServe with one worker process and one API server: `app.py PORT WAY`, the way one of the names in WAYS."""

import sys

import litserve

WAYS = {"default": (False, False), "async": (False, True), "fast": (True, False), "fast-async": (True, True)}
"""Its queue over ZeroMQ ("for more than 100 requests per second", as its documentation has it)? Async methods?"""


class Echo(litserve.LitAPI):
    def setup(self, device): ...

    def decode_request(self, request):
        return request

    def predict(self, x):
        return x

    def encode_response(self, output):
        return output


class AsyncEcho(litserve.LitAPI):
    def setup(self, device): ...

    async def decode_request(self, request):
        return request

    async def predict(self, x):
        return x

    async def encode_response(self, output):
        return output


if __name__ == "__main__":
    fast_queue, enable_async = WAYS[sys.argv[2]]
    api = (AsyncEcho if enable_async else Echo)(api_path="/echo", enable_async=enable_async)
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=fast_queue)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
