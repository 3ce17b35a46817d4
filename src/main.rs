//! The `kube-dnat` program.

fn main() {}
