// Service ports: what is shown of each, which are shown, and in which order.
const ROUTES = {
  cluster: "to all endpoints",
  local: "to endpoints on this node",
  localPolicy: "from this node and its Pods to all endpoints, from others to endpoints on this node",
  drop: "dropped: no endpoint on this node",
  reject: "rejected: no endpoint",
};

const DENIALS = {
  no_endpoints: "no endpoint",
  no_local_endpoints: "no endpoint on this node",
  source_ranges: "source not in loadBalancerSourceRanges",
};

const bracketed = (address) => (address.includes(":") ? `[${address}]` : address);

// Adds to a port what is computed once.
function prepare(port) {
  const colon = port.name.indexOf(":");
  const service = colon < 0 ? port.name : port.name.slice(0, colon);
  const portName = colon < 0 ? "" : port.name.slice(colon);
  const addresses = [...(port.clusterIPs ?? []), ...(port.loadBalancerIPs ?? []), ...(port.externalIPs ?? [])];
  const routes = port.families.flatMap((family) => [family.internal, family.external].filter(Boolean));
  const most = (field) => Math.max(0, ...port.families.map((family) => family[field]));
  const kinds = [
    port.loadBalancerIPs && "LoadBalancer",
    port.nodePort && `NodePort ${port.nodePort}`,
    port.externalIPs && "ExternalIP",
  ].filter(Boolean);
  if (kinds.length === 0) kinds.push("ClusterIP");
  const isOutside = Boolean(port.loadBalancerIPs || port.nodePort || port.externalIPs);
  if (routes.some((route) => route.startsWith("local"))) kinds.push("Local");
  if (port.affinitySeconds) kinds.push("affinity");
  if (port.balance) kinds.push(port.balance);
  const state = routes.length > 0 && routes.every((route) => route === "reject") ? "refused"
    : routes.includes("drop") || routes.includes("reject") ? "dropped" : "served";
  const places = addresses.map((address) => `${bracketed(address)}:${port.port}`);
  const text = [port.name, port.protocol, ...addresses, ...places, ...kinds, port.nodePort ?? "", port.port];
  return {
    ...port, service, portName, addresses, places, kinds, isOutside, state,
    used: most("used"), ready: most("ready"), total: most("total"), local: most("local"),
    text: text.join(" ").toLowerCase(),
  };
}

const FILTERS = {
  all: () => true,
  active: (port) => (rates.now(port.name) ?? 0) > 0,
  refused: (port) => port.state !== "served",
  unready: (port) => port.ready < port.total,
  external: (port) => port.isOutside,
};

const KEYS = {
  endpoints: (port) => port.used,
  connections: (port) => rates.counted(port.name),
  rate: (port) => rates.now(port.name) ?? 0,
};

// The ports come in the order of names; sorts are stable.
function select(ports, { search, show, sort, descending }) {
  const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
  const isShown = (port) => FILTERS[show](port) && terms.every((term) => port.text.includes(term));
  const shown = ports.filter(isShown);
  const key = KEYS[sort];
  if (key) {
    const keys = new Map(shown.map((port) => [port, key(port)]));
    shown.sort((one, other) => keys.get(one) - keys.get(other));
  }
  return descending ? shown.reverse() : shown;
}

function endpointsBadge(port) {
  if (port.state === "refused") return ["bad", "no endpoints"];
  if (port.state === "dropped") return ["warn", "none on this node"];
  return [null, `${count(port.used)}`];
}
