"""The envelope's messages do not collide with a program's own definition of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OWN_REQUEST = """
from google.protobuf import descriptor_pb2, descriptor_pool

file = descriptor_pb2.FileDescriptorProto(name="request.proto", package="ttrpc", syntax="proto3")
for name in ("Request", "Response", "Status", "KeyValue"):
    file.message_type.add(name=name).field.add(name="own", number=1, type=9, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""

CALL = """
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import StringValue
from kuasar_agent.ttrpc import NotFound, Server, connect, listen
from tests.support.ttrpc.echo import SERVICE, Echo

echo = Echo()
echo.error = NotFound("no", details=[Any(type_url="some.Type", value=b"detail")])
server = Server()
server.register(SERVICE, echo, partial=True)
server.start(listen("unix://@ttrpc-test-pool-%d" % __import__("os").getpid()))
with connect("unix://@ttrpc-test-pool-%d" % __import__("os").getpid()) as client:
    print(client.stub(SERVICE).echo(StringValue(value="hi"), metadata={"key": "value"}).value)
    try:
        client.stub(SERVICE).throw(StringValue())
    except NotFound as error:
        print(error, *(detail.value.decode() for detail in error.details))
server.close()
"""


@pytest.mark.parametrize(
    ("implementation", "order"),
    [("upb", OWN_REQUEST + CALL), ("upb", CALL + OWN_REQUEST), ("python", CALL + OWN_REQUEST)],
    ids=["C, before the package", "C, after the package", "Python"],
)
def test_program_may_define_ttrpc_request_itself(implementation: str, order: str) -> None:
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation}
    output = subprocess.check_output([sys.executable, "-c", order], env=environment, text=True)
    assert output == "hi\nno detail\n"
