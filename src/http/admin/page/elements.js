// Elements are made from text only: nothing of the cluster ever becomes markup.
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const element = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

const drawing = (name, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// Changes the text only if it differs, so that a selection and a screen reader's place survive.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function table(name, columns, rows) {
  const kind = (column) => (column.startsWith("#") ? "number" : undefined);
  const title = (column) => column.replace(/^#/, "");
  const cell = (value, column) =>
    element("td", { class: kind(columns[column]) }, value instanceof Node ? value : String(value));
  return element("table", { "aria-label": name },
    element("thead", {}, element("tr", {}, ...columns.map((column) =>
      element("th", { scope: "col", class: kind(column) }, title(column))))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))));
}
