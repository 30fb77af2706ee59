"""Names and messages as text that any file, picture and terminal can show."""


def readable(name: str) -> str:
    """A file's name as Unicode text: the same in every locale, and bytes that are no UTF-8 become ``\\xNN``.

    Python gives such bytes as lone surrogates, which can be opened but not written, drawn or printed.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """Text in a line, without control characters: those and line ends become escapes such as ``\\n``."""
    try:
        text = readable(text)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
