"""The generated protobuf modules: equal to the contract, able to share a pool."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import any_pb2
from google.protobuf.descriptor import (
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import envelope_pb2

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = Path(__file__).with_name("proto_contract.txt")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "kuasar_agent").rglob("*_pb2.py")
)


def run_python(code: str) -> str:
    """stdout of a fresh interpreter, whose descriptor pool holds only what `code` imports."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def descriptors() -> list[FileDescriptor]:
    return [importlib.import_module(module).DESCRIPTOR for module in MODULES]


def scalar_or_name(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.full_name
    if field.enum_type is not None:
        return field.enum_type.full_name
    scalar = FieldDescriptorProto.Type.DESCRIPTOR.values_by_number[field.type]
    return scalar.name.removeprefix("TYPE_").lower()


def field_line(field: FieldDescriptor) -> str:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (scalar_or_name(entry.fields_by_name[name]) for name in ("key", "value"))
        return f"  map<{key}, {value}> {field.name} = {field.number}"
    # proto3's `optional` makes a oneof of one member; the contract has neither.
    assert field.containing_oneof is None
    label = "repeated " if field.is_repeated else ""
    return f"  {label}{scalar_or_name(field)} {field.name} = {field.number}"


def enum_block(enum: EnumDescriptor) -> list[str]:
    return [f"enum {enum.full_name}", *(f"  {v.name} = {v.number}" for v in enum.values)]


def method_line(method: MethodDescriptor) -> str:
    request, response = (
        f"{'stream ' if streaming else ''}{message.full_name}"
        for message, streaming in (
            (method.input_type, method.client_streaming),
            (method.output_type, method.server_streaming),
        )
    )
    return f"  {method.name}({request}) returns ({response})"


def rendered(file: FileDescriptor) -> list[list[str]]:
    """Each message, enum and service of a file in the form of the contract file."""
    blocks = [enum_block(enum) for enum in file.enum_types_by_name.values()]
    for message in file.message_types_by_name.values():
        fields = sorted(message.fields, key=lambda field: field.number)
        blocks.append([f"message {message.full_name}", *map(field_line, fields)])
    blocks += [
        [f"service {service.full_name}", *sorted(map(method_line, service.methods))]
        for service in file.services_by_name.values()
    ]
    return blocks


def test_descriptors_equal_the_wire_contract() -> None:
    blocks = sorted(block for file in descriptors() for block in rendered(file))
    assert [line for block in blocks for line in block] == CONTRACT.read_text().splitlines()


def test_file_names_cannot_clash_with_other_projects() -> None:
    assert all(file.name.startswith("kuasar_agent/") for file in descriptors())


@pytest.mark.parametrize("order", [MODULES, MODULES[::-1]], ids=["sorted", "reversed"])
def test_modules_load_into_one_pool_without_googleapis(order: list[str]) -> None:
    loaded = run_python(f"import sys, {', '.join(order)}; print(*sys.modules)").split()
    assert set(MODULES) <= set(loaded)
    assert not [name for name in loaded if name.startswith("google.rpc")]


def test_googleapis_own_status_loads_beside_ours() -> None:
    run_python(
        f"import {', '.join(MODULES)}\n"
        "from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool\n"
        "status = descriptor_pb2.FileDescriptorProto(\n"
        "    name='google/rpc/status.proto', package='google.rpc', syntax='proto3',\n"
        "    dependency=['google/protobuf/any.proto'])\n"
        "message = status.message_type.add(name='Status')\n"
        "message.field.add(name='code', number=1, type=5, label=1)\n"
        "descriptor_pool.Default().AddSerializedFile(status.SerializeToString())\n"
    )


def test_envelope_carries_a_sandbox_call() -> None:
    packet = sandbox_pb2.SyncClockPacket(ClientSendTime=231, Delta=-1)
    service = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
    request = envelope_pb2.Request(
        service=service.full_name, method="SyncClock", payload=packet.SerializeToString()
    )
    received = envelope_pb2.Request.FromString(request.SerializeToString())
    assert received.service == "grpc.SandboxService"
    assert sandbox_pb2.SyncClockPacket.FromString(received.payload) == packet


def test_ttrpc_status_has_the_wire_form_of_google_rpc_status() -> None:
    detail = any_pb2.Any(type_url="t", value=b"v").SerializeToString()
    status = envelope_pb2.Status(code=5, message="no", details=[detail])
    wire = b"\x08\x05\x12\x02no\x1a\x06\x0a\x01t\x12\x01v"
    assert status.SerializeToString(deterministic=True) == wire


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (
            sandbox_pb2.SyncClockPacket(
                ClientSendTime=1, ClientArriveTime=2, ServerSendTime=3, ServerArriveTime=4, Delta=5
            ),
            {"ClientSendTime", "ClientArriveTime", "ServerSendTime", "ServerArriveTime", "Delta"},
        ),
        (
            sandbox_pb2.Interface(
                IPAddresses=[sandbox_pb2.IPAddress(mask="24")], hwAddr="02", raw_flags=1
            ),
            {"IPAddresses", "hwAddr", "raw_flags"},
        ),
    ],
    ids=["SyncClockPacket", "Interface"],
)
def test_json_keeps_the_spelling_of_field_names(message: Message, names: set[str]) -> None:
    assert MessageToDict(message, preserving_proto_field_name=True).keys() == names
