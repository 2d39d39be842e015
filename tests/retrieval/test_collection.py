"""How a Milvus cluster is called: the token goes with each call, and nowhere else."""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from medray.common.errors import ServiceError
from medray.retrieval.collection import TOKEN, connect


class Heard(grpc.GenericRpcHandler):
    """A server that knows no method, and keeps what callers say of themselves."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()

    def service(self, handler_call_details: Any) -> None:
        said = dict(handler_call_details.invocation_metadata)
        self.tokens.add(base64.b64decode(said.get("authorization", "")).decode())


@pytest.mark.parametrize("token", ["root:a-secret", ""])
def test_a_cluster_hears_the_token_of_the_environment(
    token: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(TOKEN, token)
    heard = Heard()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[heard])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ServiceError, match="start the Milvus cluster") as refused:
            connect(f"http://127.0.0.1:{port}")
    finally:
        server.stop(None).wait()
    assert heard.tokens == {token}
    assert "a-secret" not in str(refused.value) + caplog.text
