"""What holds of the page in any state: its size, its contrast and its names for screen readers."""

from webdriver import Failure

CONTRAST = """
const color = (text) => text.match(/[\\d.]+/g).map(Number);
const over = (top, below) => {
  const alpha = top[3] ?? 1;
  return [0, 1, 2].map((at) => top[at] * alpha + below[at] * (1 - alpha));
};
const light = (rgb) => {
  const [r, g, b] = rgb.map((of) => of / 255).map((of) => of <= 0.03928 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const back = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.unshift(color(getComputedStyle(at).backgroundColor));
  return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
};
const poor = new Set();
let seen = 0;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = walk.nextNode(); text; text = walk.nextNode()) {
  const node = text.parentElement;
  if (!text.data.trim() || !node.checkVisibility() || ["SCRIPT", "STYLE", "TITLE"].includes(node.tagName)) continue;
  seen += 1;
  const [one, other] = [light(color(getComputedStyle(node).color).slice(0, 3)), light(back(node))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) poor.add(`${node.tagName}.${node.className} "${text.data.trim().slice(0, 20)}": ${ratio.toFixed(2)}`);
}
return { seen, poor: [...poor], back: light(back(document.body)) };
"""

# The roles that need a name.
NAMED = {"button", "combobox", "searchbox", "table", "heading", "dialog", "region", "columnheader", "image"}


def check(holds, what):
    """Fails unless a condition holds."""
    if not holds:
        raise Failure(what)


def check_contrast(browser, is_dark):
    """Text is readable (WCAG AA) on the background of the preferred colours."""
    looks = browser.run(CONTRAST)
    check(looks["seen"] > 20, f"only {looks['seen']} texts are visible")
    check(looks["poor"] == [], f"poor contrast: {looks['poor']}")
    check((looks["back"] < 0.2) == is_dark, f"the background has luminance {looks['back']}")


def check_width(browser):
    """Nothing is wider than the window."""
    wide, window = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    check(wide <= window, f"the page is {wide} wide in a window of {window}")


def check_names(browser):
    """A screen reader gets a table with named columns, and every control has a name."""
    browser.devtools("Accessibility.enable")
    nodes = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    roles = [node.get("role", {}).get("value") for node in nodes if not node.get("ignored")]
    for role, least in {"table": 1, "columnheader": 6, "row": 3, "cell": 12, "searchbox": 1, "combobox": 1}.items():
        check(roles.count(role) >= least, f"{roles.count(role)} of role {role}")
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in NAMED and not node.get("ignored"):
            check(node.get("name", {}).get("value"), f"a {role} has no name")


def check_console(browser):
    """The page reports no error and no violation of its policy."""
    messages = browser.console()
    check(messages == [], f"the console has {messages}")
