"""Typed stubs: what the plugin of protoc writes, and that mypy and a call agree with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.api.sandbox_ttrpc import sandbox_service_stub
from kuasar_agent.ttrpc import Context, Server, connect, listen
from kuasar_agent.ttrpc.generate import main, stubs

if TYPE_CHECKING:
    from kuasar_agent.api.agent_ttrpc import AgentHandler
    from kuasar_agent.api.sandbox_ttrpc import SandboxServiceHandler
    from kuasar_agent.api.streaming_ttrpc import StreamingHandler
    from kuasar_agent.api.task_ttrpc import TaskHandler
    from kuasar_agent.services.agent import AgentService
    from kuasar_agent.services.sandbox import SandboxService
    from kuasar_agent.services.streaming import StreamingService
    from kuasar_agent.services.task import TaskService

    def the_agents_services_are_handlers(
        task: TaskService, sandbox: SandboxService, streaming: StreamingService, agent: AgentService
    ) -> tuple[TaskHandler, SandboxServiceHandler, StreamingHandler, AgentHandler]:
        """Checked by mypy only."""
        return task, sandbox, streaming, agent


ECHO = FileDescriptorProto(name="some/echo-1.proto", package="some", syntax="proto3")
ECHO.message_type.add(name="Outer").nested_type.add(name="Inner")
_service = ECHO.service.add(name="EchoIO")
for _name, _client, _server in (
    ("Unary", False, False),
    ("Count", False, True),
    ("Sum", True, False),
    ("Chat", True, True),
):
    _service.method.add(
        name=_name,
        input_type=".some.Outer",
        output_type=".some.Outer.Inner",
        client_streaming=_client,
        server_streaming=_server,
    )


def test_stubs_have_a_signature_for_each_kind_of_method() -> None:
    ((path, text),) = stubs([ECHO], [ECHO.name])
    assert path == "some/echo-1_ttrpc.py"
    compile(text, path, "exec")
    handlers, _, calls = text.partition("class EchoIOStub(Protocol)")
    outer, inner = "some.echo_1_pb2.Outer", "some.echo_1_pb2.Outer.Inner"
    assert f"self, ctx: Context, request: {outer}, /\n    ) -> {inner}: ..." in handlers
    for arguments in (
        f"request: {outer}, stream: ServerStream[{outer}, {inner}]",
        f"stream: ServerStream[{outer}, {inner}]",
    ):
        assert f"self, ctx: Context, {arguments}, /\n    ) -> None: ..." in handlers
    assert f"ctx: Context, stream: ServerStream[{outer}, {inner}], /\n    ) -> {inner}" in handlers
    assert calls.count(f"-> ClientStream[{outer}, {inner}]: ...") == 3
    assert calls.count("        *,\n") == 2


def test_file_without_services_gets_no_module() -> None:
    assert list(stubs([FileDescriptorProto(name="a.proto")], ["a.proto"])) == []


def test_plugin_answers_protoc() -> None:
    request = CodeGeneratorRequest(file_to_generate=[ECHO.name], proto_file=[ECHO])
    output = subprocess.run(
        [sys.executable, "-m", main.__module__],
        input=request.SerializeToString(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    (file,) = CodeGeneratorResponse.FromString(output).file
    assert (file.name, file.content) == next(stubs([ECHO], [ECHO.name]))


def test_call_through_a_typed_stub(tmp_path: Path) -> None:
    class Sandbox:
        def check(self, _ctx: Context, request: sandbox_pb2.CheckRequest) -> Empty:
            assert request.service == "agent"
            return Empty()

    server = Server()
    service = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
    server.register(service, Sandbox(), partial=True)
    server.start(listen(f"unix://{tmp_path}/sock"))
    with connect(f"unix://{tmp_path}/sock") as client:
        request = sandbox_pb2.CheckRequest(service="agent")
        assert sandbox_service_stub(client).check(request, timeout=5) == Empty()
    server.close()
