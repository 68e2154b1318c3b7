"""What every page must be: harmless, with ids that are right, and usable by everybody."""

import browser


def check_is_harmless(page, refreshes=False):
    """Fails if anything on the page could run, load, or style itself."""
    forbidden = {"script", "link", "iframe", "object", "embed", "form", "base", "img", "use", "image"}
    for node in page.walk():
        assert node.tag not in forbidden
        for name, value in node.attrs.items():
            assert name != "style"
            assert not name.startswith("on")
            assert name not in ("href", "src") or value.startswith("#")
    orders = [one.attrs["http-equiv"] for one in page.all("meta") if "http-equiv" in one.attrs]
    assert orders == ["Content-Security-Policy", *(["refresh"] if refreshes else [])]


def check_ids(page):
    """Fails if an id is there twice, or something refers to one that is not there."""
    ids = [node.attrs["id"] for node in page.walk() if "id" in node.attrs]
    assert len(set(ids)) == len(ids)
    links = {node.attrs["href"].removeprefix("#") for node in page.all("a")}
    assert links | {node.attrs["aria-labelledby"] for node in page.walk() if "aria-labelledby" in node.attrs} <= set(
        ids
    )


def check_in_browser(file, kind, color_scheme):
    """Opens a page: it asks for nothing, obeys its policy, does not scroll sideways, and axe finds nothing."""
    from axe_playwright_python.sync_playwright import Axe

    scheme = {"color_scheme": color_scheme}
    with browser.started() as chromium, browser.opened(chromium, file.as_uri(), **kind, **scheme) as shown:
        for details in shown.query_selector_all("details"):
            details.evaluate("(element) => { element.open = true }")
        assert shown.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        violations = Axe().run(shown).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []
