//! Alternate measurements of lanes, so that a change of the machine's speed affects all of them.

/// The number of measurements of each lane.
const ROUNDS: u32 = 60;

/// The sorted values of one lane, one per round.
pub(crate) struct Values(Vec<f64>);

impl Values {
    pub(crate) fn lowest(&self) -> f64 {
        *self.0.first().expect("a round")
    }

    pub(crate) fn median(&self) -> f64 {
        *self.0.get(self.0.len() / 2).expect("a round")
    }
}

/// Measures each lane once per round; `measure` gets the lane and the number of the round.
pub(crate) fn interleaved<L>(lanes: &mut [L], measure: impl Fn(&mut L, u32) -> f64) -> Vec<Values> {
    // The first round warms caches and resolves neighbours.
    for lane in &mut *lanes {
        measure(lane, 0);
    }
    let mut values: Vec<Vec<f64>> = lanes.iter().map(|_| Vec::new()).collect();
    for round in 1..=ROUNDS {
        for (lane, values) in lanes.iter_mut().zip(&mut values) {
            values.push(measure(lane, round));
        }
    }
    let sorted = values.into_iter().map(|mut values| {
        values.sort_by(f64::total_cmp);
        Values(values)
    });
    sorted.collect()
}

/// The generator xorshift32 (Marsaglia), whose cost is small compared with a packet's.
pub(crate) struct Random(u32);

impl Random {
    pub(crate) fn new(round: u32) -> Self {
        Self(0x9e37_79b9 ^ round)
    }

    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit
    }
}
