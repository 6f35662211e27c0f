"""Metadata: key-value pairs that a request carries; a key may have several values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Metadata"]

MetadataLike = Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]]
"""A mapping of keys to one value or several, or an iterable of pairs."""


class Metadata:
    """Pairs in the order sent; keys are compared without regard to case."""

    __slots__ = ("_pairs",)

    def __init__(self, source: MetadataLike = ()) -> None:
        self._pairs: list[tuple[str, str]] = []
        if isinstance(source, Mapping):
            for key, value in source.items():
                for each in (value,) if isinstance(value, str) else value:
                    self.add(key, each)
        else:
            for key, each in source:
                self.add(key, each)

    def add(self, key: str, value: str) -> None:
        """Append a value. The key is lower-cased, as Go's metadata.MD does."""
        self._pairs.append((key.lower(), value))

    def get(self, key: str, default: str | None = None) -> str | None:
        """Return the first value of a key."""
        key = key.lower()
        for name, value in self._pairs:
            if name == key:
                return value
        return default

    def get_all(self, key: str) -> list[str]:
        """Return every value of a key, in the order sent."""
        key = key.lower()
        return [value for name, value in self._pairs if name == key]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and any(name == key.lower() for name, _ in self._pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, Metadata) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Metadata({self._pairs!r})"
