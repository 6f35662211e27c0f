"""The synchronous part of start-up: from the bare kernel to a guest that can serve.

Every import here delays serving. Therefore these modules do not use pathlib, dataclasses or
logging, and a module with a NamedTuple has no `from __future__ import annotations`: typing would
compile each annotation, which is then a string (0.1 ms a field).
"""
