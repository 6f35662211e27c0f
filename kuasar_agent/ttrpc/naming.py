"""From descriptors to Python: method names and message classes."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """`CloseIO` is close_io, `ExecVMProcess` is exec_vm_process."""
    return _WORD.sub("_", name).lower()


def message_class(descriptor: Descriptor) -> type[Message]:
    """The generated class of a message type."""
    found: Any = GetMessageClass(descriptor)
    return found  # type: ignore[no-any-return]
