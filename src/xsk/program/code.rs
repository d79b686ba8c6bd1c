//! A program that looks whether there is a socket in a map: the kernel lets programs look, and nobody else.

use crate::dispatcher::code::instruction;

const BPF_FUNC_MAP_LOOKUP_ELEM: u32 = 1;
/// The map's descriptor as source of a 64-bit load.
const PSEUDO_MAP_FD: u8 = 1;

// Opcodes, as in include/uapi/linux/bpf.h.
const MOV64_REG: u8 = 0xbf;
const MOV64_IMM: u8 = 0xb7;
const ADD64_IMM: u8 = 0x07;
const STORE_WORD: u8 = 0x63;
const JEQ_IMM: u8 = 0x15;
const JLT_IMM: u8 = 0xa5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LD_IMM64: u8 = 0x18;

/// A jump back by this many instructions.
const fn back(by: u16) -> u16 {
    by.wrapping_neg()
}

/// Says 1 if the map with this descriptor has a socket for one of the queues from `start` to before `end`, and else 0.
/// Kernel 5.3, as of which programs may look into such a map, and may loop.
pub(super) fn finder(map: u32, start: u32, end: u32) -> [u64; 14] {
    [
        instruction(MOV64_IMM, 6, 0, 0, start),
        // Each queue:
        instruction(STORE_WORD, 10, 6, back(4), 0),
        instruction(LD_IMM64, 1, PSEUDO_MAP_FD, 0, map),
        0,
        instruction(MOV64_REG, 2, 10, 0, 0),
        instruction(ADD64_IMM, 2, 0, 0, 4_u32.wrapping_neg()),
        instruction(CALL, 0, 0, 0, BPF_FUNC_MAP_LOOKUP_ELEM),
        instruction(JEQ_IMM, 0, 0, 2, 0),
        instruction(MOV64_IMM, 0, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(ADD64_IMM, 6, 0, 0, 1),
        instruction(JLT_IMM, 6, 0, back(11), end),
        instruction(MOV64_IMM, 0, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_back_to_the_next_queue() {
        let code = finder(7, 3, 9);
        // A jump counts from the instruction behind it.
        let jump = code.iter().position(|i| i.to_le_bytes()[0] == JLT_IMM).unwrap();
        let [_, _, near, far, ..] = code[jump].to_le_bytes();
        let offset = i16::from_le_bytes([near, far]);
        let to = jump.checked_add_signed(isize::from(offset) + 1).unwrap();
        assert_eq!(code[to].to_le_bytes()[0], STORE_WORD);
        assert_eq!((code[0] >> 32, code[jump] >> 32, code[2] >> 32), (3, 9, 7));
    }
}
