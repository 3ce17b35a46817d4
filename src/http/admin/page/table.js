// The table of Services. Only the rows in view exist.
const MARGIN = 8;
const COLUMNS = [
  ["name", "Service", true], ["address", "Address", false], ["kinds", "Type", false],
  ["endpoints", "Endpoints", true], ["connections", "Connections", true], ["rate", "Per second", true],
];

const services = {
  ports: [], shown: [], rows: new Map(),
  view: { search: "", show: "all", sort: "name", descending: false },
  opened: () => {},

  set(ports) {
    this.ports = ports.map(prepare);
  },

  update() {
    this.shown = select(this.ports, this.view);
    const all = this.ports.length;
    const of = this.shown.length === all ? count(all) : `${count(this.shown.length)} of ${count(all)}`;
    setText(byId("services-count"), of);
    byId("table").setAttribute("aria-rowcount", this.shown.length + 1);
    this.render(true);
  },

  // Shows the rows in view; `renew`: the data may have changed.
  render(renew) {
    const body = byId("rows");
    const height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
    body.style.height = `${this.shown.length * height}px`;
    const top = body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - MARGIN);
    const last = Math.min(this.shown.length, Math.ceil((innerHeight - top) / height) + MARGIN);
    const inView = new Map();
    for (let at = first; at < last; at += 1) inView.set(this.shown[at].name, at);
    for (const [name, row] of this.rows) {
      if (inView.has(name)) continue;
      // The row with the focus stays where it is, if it is still shown.
      const at = row.contains(document.activeElement) ? this.shown.findIndex((port) => port.name === name) : -1;
      if (at >= 0) inView.set(name, at);
      else {
        row.remove();
        this.rows.delete(name);
      }
    }
    let before = null;
    for (const [name, at] of [...inView].sort((one, other) => one[1] - other[1])) {
      let row = this.rows.get(name);
      const isNew = !row;
      if (isNew) {
        row = makeRow();
        this.rows.set(name, row);
      }
      if (isNew || renew) row.show(this.shown[at]);
      row.style.transform = `translateY(${at * height}px)`;
      row.setAttribute("aria-rowindex", at + 2);
      row.at = at;
      const next = before ? before.nextSibling : body.firstChild;
      if (next !== row) body.insertBefore(row, next);
      before = row;
    }
  },

  // Moves the focus to a row, which need not exist yet.
  focus(at) {
    if (at < 0 || at >= this.shown.length) return;
    const body = byId("rows");
    const height = body.offsetHeight / this.shown.length;
    const top = body.getBoundingClientRect().top + at * height;
    const hidden = 2 * height + 60;
    if (top < hidden) scrollBy(0, top - hidden);
    else if (top + height > innerHeight) scrollBy(0, top + 2 * height - innerHeight);
    this.render(false);
    this.rows.get(this.shown[at].name)?.querySelector("button").focus({ preventScroll: true });
  },
};

function makeRow() {
  const service = element("span");
  const portName = element("span", { class: "muted" });
  const name = element("button", { class: "name", type: "button", "aria-haspopup": "dialog" }, service, portName);
  const parts = {
    address: element("span", { class: "mono" }), tags: element("div", { class: "tags" }),
    badge: element("span"), meter: drawing("svg", { class: "meter", viewBox: "0 0 44 6", "aria-hidden": "true" },
      drawing("rect", { height: 6, width: 0 })),
    note: element("span", { class: "muted" }), connections: element("span"), rate: element("span"), plot: spark(),
  };
  const cell = (key, ...children) => element("div", { role: "cell", class: `c-${key}` }, ...children);
  const row = element("div", { role: "row" },
    cell("name", name), cell("address", parts.address), cell("kinds", parts.tags),
    cell("endpoints", element("div", { class: "endpoints" }, parts.meter, parts.badge, parts.note)),
    cell("connections", element("div", { class: "connections" }, parts.connections)),
    cell("rate", element("div", { class: "rate" }, parts.plot, parts.rate)));
  row.addEventListener("click", () => {
    if (String(getSelection()) === "") services.opened(row.port);
  });
  row.show = (port) => {
    row.port = port;
    setText(service, port.service);
    setText(portName, port.portName);
    name.title = port.name;
    const [first, ...others] = port.places;
    const where = first ? `${first}/${port.protocol}` : port.nodePort ? `node port ${port.nodePort}/${port.protocol}` : "–";
    setText(parts.address, others.length > 0 ? `${where}  +${others.length}` : where);
    if (parts.tags.textContent !== port.kinds.join("")) {
      parts.tags.replaceChildren(...port.kinds.map((kind) => element("span", { class: "tag" }, kind)));
    }
    const [level, said] = endpointsBadge(port);
    setText(parts.badge, said);
    parts.badge.className = level ? "badge" : "";
    if (level) parts.badge.dataset.level = level;
    else delete parts.badge.dataset.level;
    parts.meter.classList.toggle("gone", port.total === 0);
    parts.meter.firstChild.setAttribute("width", port.total > 0 ? (44 * port.ready) / port.total : 0);
    setText(parts.note, level || port.ready === port.total ? "" : `of ${count(port.total)}`);
    setText(parts.connections, count(rates.counted(port.name)));
    const rate = rates.now(port.name);
    setText(parts.rate, perSecond(rate));
    parts.plot.draw(rates.of(port.name));
  };
  return row;
}

function makeHead() {
  const head = byId("head");
  head.setAttribute("aria-rowindex", 1);
  for (const [key, title, sorts] of COLUMNS) {
    const sort = () => {
      const { view } = services;
      // Names start with a, numbers with the highest.
      view.descending = view.sort === key ? !view.descending : key !== "name";
      view.sort = key;
      showSort();
      services.update();
    };
    head.append(element("div", { role: "columnheader", class: `h-${key}`, "data-key": key },
      sorts ? element("button", { type: "button", click: sort }, title) : title));
  }
  showSort();
}

function showSort() {
  const { sort, descending } = services.view;
  for (const header of byId("head").children) {
    if (!header.querySelector("button")) continue;
    const of = header.dataset.key === sort ? (descending ? "descending" : "ascending") : "none";
    header.setAttribute("aria-sort", of);
  }
}

function followInput() {
  makeHead();
  byId("search").addEventListener("input", (event) => {
    services.view.search = event.target.value;
    services.update();
  });
  byId("show").addEventListener("change", (event) => {
    services.view.show = event.target.value;
    services.update();
  });
  let isDue = false;
  const render = () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      services.render(false);
    });
  };
  addEventListener("scroll", render, { passive: true });
  addEventListener("resize", render, { passive: true });
  addEventListener("keydown", (event) => {
    if (byId("details").open || event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = ["INPUT", "SELECT"].includes(document.activeElement.tagName);
    const row = document.activeElement.closest?.("#rows [role=row]");
    if (event.key === "/" && !isTyping) byId("search").focus();
    else if (event.key === "ArrowDown" && document.activeElement === byId("search")) services.focus(0);
    else if (event.key === "ArrowDown" && row) services.focus(row.at + 1);
    else if (event.key === "ArrowUp" && row) services.focus(row.at - 1);
    else return;
    event.preventDefault();
  });
}
