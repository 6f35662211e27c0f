"""The syntax of the kernel command line.

Source: the kernel's next_arg() in lib/cmdline.c.
"""

from collections.abc import Iterator


def split_parameters(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield key and value of each parameter; the value of a bare word is None.

    Inside double quotes a space does not end the parameter. The quotes around a whole parameter or
    around its value are removed.
    """
    word, quoted = "", False
    for char in text + " ":
        if char == '"':
            quoted = not quoted
        if char.isspace() and not quoted:
            if word:
                yield _split_parameter(word)
            word = ""
        else:
            word += char
    if word:  # an unbalanced quote extends to the end
        yield _split_parameter(word.rstrip())


def _split_parameter(word: str) -> tuple[str, str | None]:
    if word.startswith('"'):
        word = word[1:].removesuffix('"')
    key, separator, value = word.partition("=")
    if not separator:
        return key, None
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return key, value
