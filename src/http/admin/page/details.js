// Everything about one Service port, in a dialog.
const details = {
  name: null, plot: null, asked: 0,

  open(port) {
    this.name = port.name;
    this.plot = spark(true);
    setText(byId("details-title"), port.name);
    const endpoints = element("div", { id: "endpoints" }, "Loading…");
    byId("details-body").replaceChildren(
      element("h3", {}, "New connections per second"), this.plot,
      element("h3", {}, "Frontends"), frontends(port),
      element("h3", {}, "Endpoints"), endpoints,
      element("h3", {}, "What happens to a connection"),
      element("code", { class: "command" }, `kube-dnat explain ${port.service}${port.portName}`));
    this.draw();
    byId("details").showModal();
    this.load(port, endpoints);
  },

  draw() {
    if (this.plot) this.plot.draw(rates.of(this.name));
  },

  async load(port, into) {
    this.asked += 1;
    const { asked } = this;
    let content;
    try {
      const answer = await ask(`debug/services?service=${encodeURIComponent(port.service)}`);
      content = endpointsTable(answer, port);
    } catch (error) {
      const again = element("button", { type: "button", click: () => this.load(port, into) }, "Retry");
      content = element("p", {}, `kube-dnat does not answer: ${error.message}. `, again);
    }
    if (asked === this.asked) into.replaceChildren(content);
  },
};

function frontends(port) {
  const list = element("dl", {});
  const add = (title, text) => {
    if (text) list.append(element("dt", {}, title), element("dd", {}, text));
  };
  const at = (addresses) =>
    addresses?.map((address) => `${bracketed(address)}:${port.port}/${port.protocol}`).join(", ");
  add("ClusterIP", at(port.clusterIPs));
  add("Load-balancer IP", at(port.loadBalancerIPs));
  add("External IP", at(port.externalIPs));
  add("Node port", port.nodePort && `${port.nodePort}/${port.protocol}`);
  add("Session affinity", port.affinitySeconds && duration(port.affinitySeconds));
  add("Balance", port.balance && `by hash: ${port.balance}`);
  for (const { family, internal, external, used, slots } of port.families) {
    add(`${family}, slots`, slots && `${slots} for ${used} endpoints`);
    add(`${family}, inside`, internal && (ROUTES[internal] ?? internal));
    add(`${family}, outside`, external && (ROUTES[external] ?? external));
  }
  add("Connections", count(rates.counted(port.name)));
  for (const [reason, connections] of Object.entries(rates.denied(port.name))) {
    add(`Denied, ${DENIALS[reason] ?? reason}`, count(connections));
  }
  return list;
}

function endpointsTable(answer, port) {
  const programmed = new Set([answer.IPv4, answer.IPv6].flatMap((ports) => ports ?? [])
    .filter((of) => of.name === port.name)
    .flatMap((of) => [...of.endpoints, ...of.localEndpoints]));
  const rows = answer.endpoints.flatMap((endpoint) => endpoint.ports.map((number) => {
    const place = `${bracketed(endpoint.address)}:${number}`;
    const condition = endpoint.terminating ? "terminating" : endpoint.ready ? "ready" : "not ready";
    return { place, condition, where: endpoint.local ? "this node" : "", used: programmed.delete(place) };
  }));
  // A Service with several ports has endpoints of the others, too.
  const isOfPort = ({ used, condition }) => used || condition !== "ready";
  const share = (place) => {
    const of = rates.share(port.name, place);
    return of == null ? "–" : `${Math.round(of * 100)} %`;
  };
  const shown = rows.filter(isOfPort).map(({ place, condition, where, used }) => [
    element("span", { class: "mono" }, place), condition, where, used ? "yes" : "no", share(place)]);
  for (const place of programmed) {
    shown.push([element("span", { class: "mono" }, place), "", "", "yes", share(place)]);
  }
  if (shown.length === 0) return element("p", { class: "muted" }, "No endpoint.");
  return table("Endpoints", ["Address", "Condition", "Node", "In use", "#Share"], shown);
}

function followDetails() {
  services.opened = (port) => details.open(port);
  byId("details-close").addEventListener("click", () => byId("details").close());
  byId("details").addEventListener("click", (event) => {
    if (event.target === byId("details")) byId("details").close();
  });
  byId("details").addEventListener("close", () => { details.plot = null; });
}
