// What is not served, and why.
const MOST = 200;

function showProblems({ problems, loaded }) {
  const objects = Object.entries(problems);
  setText(byId("unserved-count"), loaded ? count(objects.length) : "");
  const list = byId("unserved-list");
  const shown = JSON.stringify([objects, loaded]);
  if (list.shown === shown) return;
  list.shown = shown;
  if (objects.length === 0) {
    const text = loaded ? "Everything is served as its objects ask." : "Not known yet.";
    list.replaceChildren(element("p", { class: loaded ? "fine" : "muted" }, text));
    return;
  }
  const entries = objects.slice(0, MOST).map(([object, reasons]) =>
    element("li", { class: "unserved" }, element("strong", {}, object),
      ...reasons.map((reason) => element("p", {}, reason))));
  const more = objects.length - MOST;
  const rest = more > 0 ? element("p", { class: "muted" }, `and ${count(more)} more: kube-dnat status -o json`) : null;
  list.replaceChildren(...[element("ul", { class: "plain" }, ...entries), rest].filter(Boolean));
}
