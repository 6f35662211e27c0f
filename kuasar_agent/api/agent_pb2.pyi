from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MetricsResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class LeaksResponse(_message.Message):
    __slots__ = ("leaks",)
    LEAKS_FIELD_NUMBER: _ClassVar[int]
    leaks: _containers.RepeatedCompositeFieldContainer[Leak]
    def __init__(self, leaks: _Optional[_Iterable[_Union[Leak, _Mapping]]] = ...) -> None: ...

class Leak(_message.Message):
    __slots__ = ("kind", "what", "detail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    what: str
    detail: str
    def __init__(self, kind: _Optional[str] = ..., what: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class BootResponse(_message.Message):
    __slots__ = ("steps", "serving_ms", "kernel", "version", "marks")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SERVING_MS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[BootStep]
    serving_ms: float
    kernel: str
    version: str
    marks: _containers.RepeatedCompositeFieldContainer[KernelMark]
    def __init__(self, steps: _Optional[_Iterable[_Union[BootStep, _Mapping]]] = ..., serving_ms: _Optional[float] = ..., kernel: _Optional[str] = ..., version: _Optional[str] = ..., marks: _Optional[_Iterable[_Union[KernelMark, _Mapping]]] = ...) -> None: ...

class BootStep(_message.Message):
    __slots__ = ("name", "start_ms", "ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    start_ms: float
    ms: float
    def __init__(self, name: _Optional[str] = ..., start_ms: _Optional[float] = ..., ms: _Optional[float] = ...) -> None: ...

class KernelMark(_message.Message):
    __slots__ = ("at_ms", "text")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    at_ms: float
    text: str
    def __init__(self, at_ms: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class DumpResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lines: _Optional[_Iterable[str]] = ...) -> None: ...
