"""The synchronous part of start-up: from the bare kernel to a system that can serve.

What is imported here delays serving. So neither pathlib, dataclasses nor logging is used, and a
module with a NamedTuple does without `from __future__ import annotations`, since typing compiles
every annotation that is a string (0.1 ms a field).
"""
