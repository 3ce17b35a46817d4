//! Measures lanes in turns, so that a change of the machine's speed meets all of them.

/// How often each lane is measured.
const ROUNDS: u32 = 60;

/// What was measured of one lane, a value a round, in order of size.
pub(crate) struct Values(Vec<f64>);

impl Values {
    pub(crate) fn lowest(&self) -> f64 {
        *self.0.first().expect("a round")
    }

    pub(crate) fn median(&self) -> f64 {
        *self.0.get(self.0.len() / 2).expect("a round")
    }
}

/// Measures each lane once a round. Both get the round's number: all lanes do the same in a round.
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

/// xorshift32 (Marsaglia): where a packet goes must not cost more than the packet.
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
