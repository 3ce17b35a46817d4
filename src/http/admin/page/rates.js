// New connections per second, from successive samples of the kernel's counters.
const SAMPLES = 40;

const rates = {
  tick: 0,
  last: null,
  // The rates of each Service port, up to the tick of its last connection.
  series: new Map(),
  total: [],

  add(sample) {
    const connections = new Map(Object.entries(sample.connections));
    const before = this.last;
    if (before && sample.now <= before.now) return;
    const { denied = {}, sampled = {} } = sample;
    this.last = { now: sample.now, connections, denied, sampled };
    if (!before) return;
    this.tick += 1;
    const seconds = sample.now - before.now;
    let sum = 0;
    for (const [name, counted] of connections) {
      const earlier = before.connections.get(name) ?? 0;
      // A daemon that has restarted counts from zero.
      const rate = (counted < earlier ? counted : counted - earlier) / seconds;
      if (rate > 0) {
        sum += rate;
        this.push(name, rate);
      }
    }
    this.total = [...this.total, sum].slice(-SAMPLES);
  },

  push(name, rate) {
    const values = this.of(name).slice(0, -1);
    this.series.set(name, { tick: this.tick, values: [...values, rate].slice(-SAMPLES) });
  },

  // All rates of a Service port until now, oldest first.
  of(name) {
    const { tick, values } = this.series.get(name) ?? { tick: 0, values: [] };
    const idle = Math.min(this.tick - tick, SAMPLES);
    return [...values, ...Array(idle).fill(0)].slice(-Math.min(SAMPLES, this.tick));
  },

  now(name) {
    const of = this.series.get(name);
    if (this.tick === 0) return null;
    return of && of.tick === this.tick ? of.values.at(-1) : 0;
  },

  // The connections that were rejected or dropped, by reason.
  denied(name) {
    return this.last?.denied[name] ?? {};
  },

  // Each endpoint's share of the sampled connections; null without a sample.
  share(name, endpoint) {
    const sampled = this.last?.sampled[name] ?? {};
    const all = Object.values(sampled).reduce((sum, some) => sum + some, 0);
    return all > 0 ? (sampled[endpoint] ?? 0) / all : null;
  },

  counted(name) {
    return this.last?.connections.get(name) ?? 0;
  },
};
