//! The hash of nft's `jhash`: Bob Jenkins' lookup3, as the kernel has it (`linux/jhash.h`).

/// Returns the number below `slots` that a hash of these bytes selects, at least of one word.
///
/// The kernel scales the hash (`reciprocal_scale` in `nft_jhash_eval`), and takes no remainder.
pub(super) fn slot(bytes: &[u8], seed: u32, slots: u32) -> u32 {
    let scaled = (u64::from(hash(bytes, seed)) * u64::from(slots)) >> 32;
    u32::try_from(scaled).unwrap_or(0)
}

/// Returns the hash of whole words of 4 bytes; others are ignored.
fn hash(bytes: &[u8], seed: u32) -> u32 {
    let words: Vec<[u8; 4]> = bytes
        .chunks_exact(4)
        .filter_map(|word| word.try_into().ok())
        .collect();
    let len = u32::try_from(words.len() * 4).unwrap_or(0);
    let mut state = [0xdead_beef_u32.wrapping_add(len).wrapping_add(seed); 3];
    let mut rest = &words[..];
    while rest.len() > 3
        && let Some((block, after)) = rest.split_first_chunk::<3>()
    {
        // The kernel reads all but the last words in the byte order of the machine.
        add(&mut state, block.map(u32::from_ne_bytes));
        mix(&mut state);
        rest = after;
    }
    add(
        &mut state,
        rest.iter().map(|word| u32::from_le_bytes(*word)),
    );
    finish(state)
}

/// Adds a word to each part of the state, as long as there are words.
fn add(state: &mut [u32; 3], words: impl IntoIterator<Item = u32>) {
    for (part, word) in state.iter_mut().zip(words) {
        *part = part.wrapping_add(word);
    }
}

/// Mixes the state between two blocks (`__jhash_mix`).
fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |one: &mut u32, other: &mut u32, sum: u32, bits| {
        *one = one.wrapping_sub(*other) ^ other.rotate_left(bits);
        *other = other.wrapping_add(sum);
    };
    step(a, c, *b, 4);
    step(b, a, *c, 6);
    step(c, b, *a, 8);
    step(a, c, *b, 16);
    step(b, a, *c, 19);
    step(c, b, *a, 4);
}

/// Mixes the state at the end, and returns the hash (`__jhash_final`).
fn finish([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    let step = |one: &mut u32, other: u32, bits| {
        *one = (*one ^ other).wrapping_sub(other.rotate_left(bits));
    };
    step(&mut c, b, 14);
    step(&mut a, c, 11);
    step(&mut b, a, 25);
    step(&mut c, b, 16);
    step(&mut a, c, 4);
    step(&mut b, a, 14);
    step(&mut c, b, 24);
    c
}
