"""XML from others, read by defusedxml, which expands no entities and takes no document type (extra `integrated`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi._errors import MalformedResponseError, SecurityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

__all__ = ["first_child_of", "parsed"]


def parsed(document: bytes, name: str) -> Element:
    """Return the root of *document*, which is called *name* in errors.

    Raises:
        SecurityError: it declares a document type or entities, which no protocol here needs and attacks do.
        MalformedResponseError: it is no XML.
    """
    from defusedxml import DefusedXmlException  # noqa: PLC0415  (an extra)
    from defusedxml.ElementTree import ParseError, fromstring  # noqa: PLC0415

    try:
        root: Element = fromstring(document, forbid_dtd=True)
    except DefusedXmlException:
        raise SecurityError(f"{name} declares a document type or entities, as attacks do; it was not read") from None
    except (ParseError, ValueError, LookupError):  # The last for an encoding that nobody knows.
        raise MalformedResponseError(f"{name} is no XML: it has {len(document)} bytes") from None
    return root


def first_child_of(tag: str, document: bytes) -> bytes | None:
    """Return the very bytes of the first element in the first element *tag* of *document*, or None.

    To parse it and write it anew would move namespaces and change blanks, and break a signature over them. *document*
    is one that `parsed` has taken.
    """
    from defusedxml.ElementTree import XMLParser  # noqa: PLC0415

    finder = _Finder(tag, lambda: int(parser.parser.CurrentByteIndex))
    parser = XMLParser(target=finder, forbid_dtd=True)
    parser.feed(document)
    parser.close()
    if finder.first is None or finder.last is None:
        return None
    return document[finder.first : document.index(b">", finder.last) + 1]


class _Finder:
    """Notes where the tags of the first element in the first element *tag* are: *first* and *last*, as byte numbers."""

    def __init__(self, tag: str, where: Callable[[], int]) -> None:
        self._tag = tag
        self._where = where
        self._open: list[str] = []
        self._depth = 0
        self.first: int | None = None
        self.last: int | None = None

    def start(self, tag: str, _attributes: object) -> None:
        if self.first is None and self._open[-1:] == [self._tag]:
            self.first, self._depth = self._where(), len(self._open)
        self._open.append(tag)

    def end(self, _tag: str) -> None:
        self._open.pop()
        if self.first is not None and self.last is None and len(self._open) == self._depth:
            self.last = self._where()
