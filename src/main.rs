//! The `kube-dnat` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kube_dnat::main()
}
