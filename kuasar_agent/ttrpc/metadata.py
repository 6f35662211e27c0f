"""Metadata: repeated key-value pairs sent along with a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

MetadataLike = Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]]
"""What a caller may hand in: a mapping to one or several values, or pairs."""


class Metadata:
    """Keys compare without regard to case; values of one key keep their order."""

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
        """Append a value to a key. Keys are lower-cased, as Go's MD does."""
        self._pairs.append((key.lower(), value))

    def get(self, key: str, default: str | None = None) -> str | None:
        """The key's first value."""
        key = key.lower()
        for name, value in self._pairs:
            if name == key:
                return value
        return default

    def get_all(self, key: str) -> list[str]:
        """Every value of the key, in the order sent."""
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
