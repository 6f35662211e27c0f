"""Typed stubs for services: a plugin of protoc.

    protoc --plugin=protoc-gen-ttrpc --ttrpc_out=DIRECTORY --python_out=DIRECTORY FILE.proto

For each file with services, `FILE_ttrpc.py` is written beside `FILE_pb2.py`. It has, per service,
two protocols for type checkers and two functions:

    class TaskHandler(Protocol)                 the methods that a server's handler needs
    def register_task(server, handler)          Server.register for such a handler
    class TaskStub(Protocol)                    the methods of a client's stub
    def task_stub(client)                       Client.stub as such a stub

Nothing else depends on them: a server and a client work from the descriptors in `FILE_pb2.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from .service import snake_case

PACKAGE = __package__ or "ttrpc"

_MODULE = '''\
"""Typed stubs for {proto}, written by {package}.generate. DO NOT EDIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import {module}

if TYPE_CHECKING:
{imports}
    from {package} import Client, ClientStream, Context, Server, ServerStream
    from {package}.metadata import MetadataLike

__all__ = [
{names}
]
{services}'''

_SERVICE = '''

class {name}Handler(Protocol):
    """The handler of {full_name}."""

{handlers}


def register_{snake}(
    server: Server, handler: {name}Handler, name: str | None = None
) -> None:
    """Serve {full_name}, or with `name` the same service of another name."""
    server.register({descriptor}, handler, name)


class {name}Stub(Protocol):
    """{full_name} on a client."""

{calls}


def {snake}_stub(client: Client, name: str | None = None) -> {name}Stub:
    """Return the methods of {full_name}, or of the same service of another name."""
    return cast("{name}Stub", client.stub({descriptor}, name))
'''

_HANDLER = """\
    def {name}(
        self, {arguments}, /
    ) -> {result}: ..."""

_CALL = """\
    def {name}(
        self,
        {arguments}
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> {result}: ..."""


def stubs(files: Sequence[FileDescriptorProto], wanted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return path and text of the module for each file in `wanted` that has services.

    `files` are these files and all that they import.
    """
    messages = {name: where for file in files for name, where in _messages(file)}
    by_name = {file.name: file for file in files}
    for proto in wanted:
        file = by_name[proto]
        if file.service:
            yield f"{proto.removesuffix('.proto')}_ttrpc.py", _module(file, messages)


def main() -> None:
    """Answer the CodeGeneratorRequest that protoc writes to the standard input."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    for path, text in stubs(request.proto_file, request.file_to_generate):
        response.file.add(name=path, content=text)
    sys.stdout.buffer.write(response.SerializeToString())


def _module_of(proto: str) -> str:
    """Return the name of the module that protoc writes for a file."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"


def _messages(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[str, str]]]:
    """Return the full name of each message with its module and its name there."""
    prefix = f".{file.package}" if file.package else ""
    module = _module_of(file.name)

    def walk(messages: Iterable[DescriptorProto], outer: str) -> Iterator[str]:
        for message in messages:
            yield outer + message.name
            yield from walk(message.nested_type, f"{outer}{message.name}.")

    for name in walk(file.message_type, ""):
        yield f"{prefix}.{name}", (module, name)


def _module(file: FileDescriptorProto, messages: dict[str, tuple[str, str]]) -> str:
    module = _module_of(file.name)
    types = {name: ".".join(where) for name, where in messages.items()}
    used = {
        messages[name][0]
        for service in file.service
        for method in service.method
        for name in (method.input_type, method.output_type)
    }
    names = [
        name
        for service in file.service
        for name in (
            f"{service.name}Handler",
            f"{service.name}Stub",
            f"register_{snake_case(service.name)}",
            f"{snake_case(service.name)}_stub",
        )
    ]
    return _MODULE.format(
        proto=file.name,
        package=PACKAGE,
        module=module,
        imports="\n".join(f"    import {each}" for each in sorted(used - {module})),
        names="\n".join(f'    "{name}",' for name in sorted(names)),
        services="".join(_service(service, file, types) for service in file.service),
    ).replace("if TYPE_CHECKING:\n\n", "if TYPE_CHECKING:\n")


def _service(
    service: ServiceDescriptorProto, file: FileDescriptorProto, types: dict[str, str]
) -> str:
    return _SERVICE.format(
        name=service.name,
        full_name=f"{file.package}.{service.name}".removeprefix("."),
        snake=snake_case(service.name),
        descriptor=f'{_module_of(file.name)}.DESCRIPTOR.services_by_name["{service.name}"]',
        handlers="\n\n".join(_handler(method, types) for method in service.method),
        calls="\n\n".join(_call(method, types) for method in service.method),
    )


def _handler(method: MethodDescriptorProto, types: dict[str, str]) -> str:
    request, reply = types[method.input_type], types[method.output_type]
    arguments = ["ctx: Context"]
    if not method.client_streaming:
        arguments.append(f"request: {request}")
    if method.client_streaming or method.server_streaming:
        arguments.append(f"stream: ServerStream[{request}, {reply}]")
    if method.server_streaming:
        reply = "None"
    elif method.output_type == ".google.protobuf.Empty":
        reply += " | None"
    return _HANDLER.format(
        name=snake_case(method.name), arguments=", ".join(arguments), result=reply
    )


def _call(method: MethodDescriptorProto, types: dict[str, str]) -> str:
    request, reply = types[method.input_type], types[method.output_type]
    streaming = method.client_streaming or method.server_streaming
    return _CALL.format(
        name=snake_case(method.name),
        arguments="*," if method.client_streaming else f"request: {request},",
        result=f"ClientStream[{request}, {reply}]" if streaming else reply,
    )


if __name__ == "__main__":
    main()
