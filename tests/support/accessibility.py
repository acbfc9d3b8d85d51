"""What keeps people from using a page: axe's rules, and what axe does not look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.support import ROOT
from tests.support.npm import node_modules
from tests.support.tabs import Page

AXE = ROOT / "tests" / "projects" / "axe"
LEAST_CONTRAST = 4.5
NARROW = 390
"""The width of a telephone, in pixels."""

SCHEMES = ("light", "dark")

WATCH_VIOLATIONS = """
    self.violations = [];
    self.addEventListener("securitypolicyviolation", (event) => {
        violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
    });
"""
"""A script that keeps what the page's Content-Security-Policy refuses in ``violations``."""

_RUN_AXE = """
    axe.run(document, {resultTypes: ["violations"]}).then(({violations}) =>
        violations.flatMap(({id, nodes}) => nodes.map((each) =>
            `${id}: ${each.target} ${each.any.map((one) => one.message).join(" ")}`)))
"""

_CONTRASTS = """(() => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d", {willReadFrequently: true});

    function rgba(colour) {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
        return [red, green, blue, alpha / 255];
    }
    function mix(below, [red, green, blue, alpha]) {
        return [red, green, blue].map((value, i) => value * alpha + below[i] * (1 - alpha));
    }
    // The colours of the text and of what is behind it, as they appear.
    function seen(element, colour) {
        if (!element) {
            return [colour, ground];
        }
        const style = getComputedStyle(element);
        const [, behind] = seen(element.parentElement, colour);
        const back = mix(behind, rgba(style.backgroundColor));
        const through = (each) => mix(behind, [...each, Number(style.opacity)]);
        return [through(colour), through(back)];
    }
    const probe = document.createElement("div");
    probe.style.backgroundColor = "Canvas";
    document.body.append(probe);
    const ground = rgba(getComputedStyle(probe).backgroundColor).slice(0, 3);
    probe.remove();
    function text_of(element, pseudo) {
        const [red, green, blue, alpha] = rgba(getComputedStyle(element, pseudo).color);
        const [, back] = seen(element, [0, 0, 0]);
        let colour = mix(back, [red, green, blue, alpha]);
        for (let each = element; each; each = each.parentElement) {
            const behind = each.parentElement ? seen(each.parentElement, [0, 0, 0])[1] : back;
            colour = mix(behind, [...colour, Number(getComputedStyle(each).opacity)]);
        }
        return [colour, back];
    }
    function luminance(colour) {
        const [red, green, blue] = colour.map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    }
    function contrast(element, pseudo) {
        const [light, dark] = text_of(element, pseudo).map(luminance).sort((a, b) => b - a);
        return (light + 0.05) / (dark + 0.05);
    }
    function has_text(element) {
        return [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    }
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
        if (!element.checkVisibility({visibilityProperty: true, contentVisibilityAuto: true})) {
            continue;
        }
        const pseudos = element.placeholder ? [null, "::placeholder"] : [null];
        if (has_text(element) || element.matches("input, select, textarea")) {
            for (const pseudo of pseudos) {
                const what = element.outerHTML.slice(0, 90) + (pseudo || "");
                found.push([contrast(element, pseudo), what]);
            }
        }
    }
    return found.filter(([ratio]) => ratio < LEAST)
        .map(([ratio, what]) => `contrast ${ratio.toFixed(2)}: ${what}`);
})()""".replace("LEAST", str(LEAST_CONTRAST))


def axe() -> str:
    """The program; blocks. Skips the test where npm has no packages."""
    return Path(node_modules(AXE / "package.json") / "axe-core" / "axe.min.js").read_text()


@inlineCallbacks
def faults(page: Page) -> Any:
    """Fire with all faults of what the page shows now, in the colours of now."""
    if not (yield page.run("'axe' in self")):
        program = yield deferToThread(axe)
        yield page.run(f"(() => {{ {program}; }})()")
    found = yield page.run(_RUN_AXE)
    found += yield page.run(_CONTRASTS)
    return found


@inlineCallbacks
def faults_in_all_colours(page: Any, width: int = 1000) -> Any:
    """Fire with the faults in light and dark, and of a narrow window. Chromium only."""
    found = []
    for scheme in SCHEMES:
        yield page.prefer(scheme)
        yield page.resize(width, 720)
        found += [f"{scheme}: {each}" for each in (yield faults(page))]
    yield page.resize(NARROW, 844)
    beyond = yield page.run("document.documentElement.scrollWidth - innerWidth")
    if beyond > 0:
        found.append(f"the page is {beyond} pixels wider than a telephone")
    found += [f"narrow: {each}" for each in (yield faults(page))]
    yield page.resize(width, 720)
    found += yield page.run("self.violations || ['violations are not watched']")
    return found
