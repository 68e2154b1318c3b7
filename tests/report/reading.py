"""An HTML file as a tree, in the standard library's reading of it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input", "link", "hr", "wbr"}


class Node:
    """An element: its name, its attributes, and its children, which are elements and texts."""

    def __init__(self, tag, attrs, parent):
        self.tag, self.attrs, self.parent, self.children, self.is_read = tag, attrs, parent, [], False

    def walk(self):
        """The element and all elements below it, in order."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag=None, **attrs):
        """The elements below with this name and these attributes; ``class_`` is one of the classes."""
        wanted = attrs.pop("class_", None)
        return [
            node
            for node in self.walk()
            if node is not self
            and tag in (None, node.tag)
            and (wanted is None or wanted in (node.attrs.get("class") or "").split())
            and all(node.attrs.get(name.replace("_", "-")) == value for name, value in attrs.items())
        ]

    def one(self, tag=None, **attrs):
        """The only such element."""
        [found] = self.all(tag, **attrs)
        return found

    @property
    def text(self):
        """Its text, with single spaces."""
        parts = []

        def collect(node):
            node.is_read = True
            for child in node.children:
                if isinstance(child, str):
                    parts.append(child)
                else:
                    collect(child)

        collect(self)
        return " ".join("".join(parts).split())

    def unread(self):
        """The texts that nobody has asked for, except those of charts, which have a text alternative instead."""
        found = []
        for node in self.walk():
            if not node.is_read and node.tag not in ("text", "code"):
                found += [child for child in node.children if isinstance(child, str) and child.strip()]
        return found


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.at = self.root = Node("", {}, None)

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute twice"
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag, attrs):
        self.at.children.append(Node(tag, dict(attrs), self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def read_html(text):
    """The root of the tree. Fails if an element is not closed, or closed twice."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.at is reader.root
    return reader.root


def rows_of(table):
    """The rows of a table's body: lists of texts."""
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in table.one("tbody").all("tr")]
