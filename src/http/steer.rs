//! The classic BPF program that selects the accept queue of a connection.

use std::io;
use std::os::fd::BorrowedFd;

use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::AttachReusePortCbpf;

/// The number of the socket for this node in the group: it listened first.
const OWN: u32 = 0;

/// The number of the socket for other hosts in the group.
const OTHER: u32 = 1;

/// The base of offsets in the network header (`SKF_NET_OFF` in linux/filter.h).
const NETWORK: u32 = 0xfff0_0000;

// The instructions of linux/bpf_common.h.
/// The instruction `BPF_LD | BPF_B | BPF_ABS`.
const LOAD_BYTE: u16 = 0x30;
/// The instruction `BPF_LD | BPF_W | BPF_ABS`.
const LOAD_WORD: u16 = 0x20;
/// The instruction `BPF_ALU | BPF_RSH | BPF_K`.
const SHIFT_RIGHT: u16 = 0x74;
/// The instruction `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_EQUAL: u16 = 0x15;
/// The instruction `BPF_JMP | BPF_JEQ | BPF_X`.
const JUMP_EQUAL_INDEX: u16 = 0x1d;
/// The instruction `BPF_MISC | BPF_TAX`.
const TO_INDEX: u16 = 0x07;
/// The instruction `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// Attaches the program to a group of sockets, of which this one is the first.
pub(super) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut instructions = program();
    let program = sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        // The kernel copies the instructions during the call.
        filter: instructions.as_mut_ptr(),
    };
    Ok(setsockopt(&socket, AttachReusePortCbpf, &program)?)
}

/// Builds the program, which decides like `slots::peer`.
///
/// A connection is the node's own if its source is a loopback address or equals the destination,
/// which no packet from outside has.
fn program() -> Vec<sock_filter> {
    let mut program = vec![
        instruction(LOAD_BYTE, NETWORK),
        instruction(SHIFT_RIGHT, 4),
        jump(JUMP_EQUAL, 6, 8, 0),
        // IPv4.
        instruction(LOAD_WORD, NETWORK + 12),
        instruction(TO_INDEX, 0),
        instruction(SHIFT_RIGHT, 24),
        jump(JUMP_EQUAL, 127, 2, 0),
        instruction(LOAD_WORD, NETWORK + 16),
        jump(JUMP_EQUAL_INDEX, 0, 0, 1),
        instruction(RETURN, OWN),
        instruction(RETURN, OTHER),
    ];
    // IPv6: the source is ::1, or each of its words equals that of the destination.
    for (word, value, others) in [(8, 0, 7), (12, 0, 5), (16, 0, 3), (20, 1, 1)] {
        program.push(instruction(LOAD_WORD, NETWORK + word));
        program.push(jump(JUMP_EQUAL, value, 0, others));
    }
    program.push(instruction(RETURN, OWN));
    for word in [8, 12, 16, 20] {
        program.push(instruction(LOAD_WORD, NETWORK + word));
        program.push(instruction(TO_INDEX, 0));
        program.push(instruction(LOAD_WORD, NETWORK + 16 + word));
        program.push(jump(JUMP_EQUAL_INDEX, 0, 1, 0));
        program.push(instruction(RETURN, OTHER));
    }
    program.push(instruction(RETURN, OWN));
    program
}

/// Builds an instruction without jump targets.
fn instruction(code: u16, operand: u32) -> sock_filter {
    jump(code, operand, 0, 0)
}

/// Builds a jump that skips `equal` instructions if the comparison holds, else `unequal`.
fn jump(code: u16, operand: u32, equal: u8, unequal: u8) -> sock_filter {
    sock_filter {
        code,
        jt: equal,
        jf: unequal,
        k: operand,
    }
}
