//! The dispatcher's instructions, written for the programs that it is to run. Pure.
//!
//! `bpf/xdp_dispatcher.c` says the same in C, for ten slots and a configuration that it reads; its BTF is what this code
//! is loaded with. Here only the slots in use exist, which is less for the kernel to check and to compile, and the actions
//! stand in the code. The configuration map is in it only so that the kernel counts it as the program's.

use super::config::SlotConfig;
use super::types::{Function, Types};
use crate::program::ChainActions;

/// What an empty slot returns: "go on".
const EMPTY: u32 = 31;
const XDP_PASS: u32 = 2;
const BPF_FUNC_XDP_ADJUST_TAIL: u32 = 65;
/// The map's descriptor and offset 0 in its value, as source of a 64-bit load.
const PSEUDO_MAP_VALUE: u8 = 2;
const PSEUDO_CALL: u8 = 1;

// Opcodes, as in include/uapi/linux/bpf.h.
const MOV64_REG: u8 = 0xbf;
const MOV32_IMM: u8 = 0xb4;
const RSH32_REG: u8 = 0x7c;
const JNE32_IMM: u8 = 0x56;
const JSET32_IMM: u8 = 0x46;
const JA: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LD_IMM64: u8 = 0x18;

/// Instructions in the dispatcher for each slot, and in a stub.
const PER_SLOT: usize = 6;
const STUB: usize = 4;

/// A dispatcher's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    /// Little-endian, 8 bytes each.
    pub(super) instructions: Vec<u64>,
    /// Pairs of instruction index and BTF type id, one for each function.
    pub(super) functions: Vec<[u32; 2]>,
}

/// One instruction of `struct bpf_insn`.
pub(crate) const fn instruction(opcode: u8, to: u8, from: u8, offset: u16, immediate: u32) -> u64 {
    let [low, middle, high, top] = immediate.to_le_bytes();
    let [near, far] = offset.to_le_bytes();
    u64::from_le_bytes([opcode, from << 4 | to, near, far, low, middle, high, top])
}

/// A dispatcher that calls one stub for each slot, in their order, and goes on after those verdicts that the slot's
/// actions tell. It is loaded with the BTF of `types`; `config` is the descriptor of its configuration map. `None` for
/// more slots than there are types.
pub(super) fn dispatcher(slots: &[SlotConfig], types: &Types, config: u32) -> Option<Code> {
    let mut main = vec![
        instruction(MOV64_REG, 6, 1, 0, 0),
        // Never taken, and taken out by the verifier, once it has seen the map.
        instruction(MOV32_IMM, 0, 0, 0, XDP_PASS),
        instruction(JNE32_IMM, 0, 0, 1, XDP_PASS),
        instruction(JA, 0, 0, 2, 0),
        instruction(LD_IMM64, 1, PSEUDO_MAP_VALUE, 0, config),
        0,
    ];
    let end = main.len() + slots.len() * PER_SLOT + 2;
    for (number, slot) in slots.iter().enumerate() {
        let call = main.len() + 1;
        let distance = u32::try_from(end + number * STUB - call - 1).ok()?;
        main.extend([
            instruction(MOV64_REG, 1, 6, 0, 0),
            instruction(CALL, 0, PSEUDO_CALL, 0, distance),
            instruction(MOV32_IMM, 1, 0, 0, actions(slot.actions)),
            instruction(RSH32_REG, 1, 0, 0, 0),
            instruction(JSET32_IMM, 1, 0, 1, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ]);
    }
    main.extend([instruction(MOV32_IMM, 0, 0, 0, XDP_PASS), instruction(EXIT, 0, 0, 0, 0)]);
    let Function { btf_id, .. } = types.function("xdp_dispatcher")?;
    let mut functions = vec![[0, btf_id]];
    for number in 0..slots.len() {
        let Function { btf_id, .. } = types.function(&format!("prog{number}"))?;
        functions.push([u32::try_from(main.len()).ok()?, btf_id]);
        main.extend(stub());
    }
    Some(Code { instructions: main, functions })
}

fn actions(actions: ChainActions) -> u32 {
    actions.to_wire() | 1 << EMPTY
}

/// A slot without a program. It changes the packet's tail by nothing: so the verifier knows that a call to it may move
/// the packet, and lets a program take its place that really does.
fn stub() -> [u64; STUB] {
    [
        instruction(MOV32_IMM, 2, 0, 0, 0),
        instruction(CALL, 0, 0, 0, BPF_FUNC_XDP_ADJUST_TAIL),
        instruction(MOV32_IMM, 0, 0, 0, EMPTY),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::config::MAX_PROGRAMS;
    use super::super::types::XDP_DISPATCHER;
    use super::*;

    fn slots(count: usize) -> Vec<SlotConfig> {
        let slot = |n| SlotConfig {
            priority: 1,
            actions: if n % 2 == 0 { ChainActions::PASS } else { ChainActions::TX },
            flags: 0,
        };
        (0..count).map(slot).collect()
    }

    /// Runs the code as the kernel would, with each slot's verdict given; and tells which slots ran.
    fn run(code: &Code, verdicts: &[u32]) -> (u32, Vec<usize>) {
        let (mut at, mut registers, mut ran) = (0_usize, [0_u64; 11], Vec::new());
        loop {
            let i = code.instructions[at];
            let (to, from) = ((i >> 8 & 0xf) as usize, (i >> 12 & 0xf) as usize);
            let (offset, immediate) = ((i >> 16 & 0xffff) as usize, (i >> 32) as u32);
            let low = |register: u64| u32::try_from(register & 0xffff_ffff).unwrap();
            match (i & 0xff) as u8 {
                MOV64_REG => registers[to] = registers[from],
                MOV32_IMM => registers[to] = immediate.into(),
                RSH32_REG => {
                    registers[to] = low(registers[to]).wrapping_shr(low(registers[from])).into();
                }
                JNE32_IMM if low(registers[to]) != immediate => at += offset,
                JSET32_IMM if low(registers[to]) & immediate != 0 => at += offset,
                JNE32_IMM | JSET32_IMM => {}
                JA => at += offset,
                CALL => {
                    let target = u32::try_from(at + 1).unwrap() + immediate;
                    let slot = code.functions.iter().position(|[start, _]| *start == target);
                    let slot = slot.expect("a call into a function") - 1;
                    ran.push(slot);
                    registers[0] = verdicts[slot].into();
                    registers[1] = 0xdead;
                }
                EXIT => return (low(registers[0]), ran),
                other => panic!("opcode {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn it_goes_on_after_the_actions_of_each_slot() {
        let code = dispatcher(&slots(3), &XDP_DISPATCHER, 9).unwrap();
        // Slot 0 goes on after XDP_PASS (2), slot 1 after XDP_TX (3), slot 2 after XDP_PASS.
        assert_eq!(run(&code, &[2, 3, 2]), (2, vec![0, 1, 2]));
        assert_eq!(run(&code, &[1, 3, 2]), (1, vec![0]));
        assert_eq!(run(&code, &[2, 2, 2]), (2, vec![0, 1]));
        assert_eq!(run(&code, &[2, 3, 4]), (4, vec![0, 1, 2]));
        assert_eq!(run(&code, &[EMPTY; 3]), (2, vec![0, 1, 2]));
    }

    #[test]
    fn every_function_has_its_stub() {
        for count in 1..=MAX_PROGRAMS {
            let code = dispatcher(&slots(count), &XDP_DISPATCHER, 9).unwrap();
            assert_eq!(code.functions.len(), count + 1);
            assert_eq!(run(&code, &[EMPTY; MAX_PROGRAMS]).1, (0..count).collect::<Vec<_>>());
            for (start, [at, btf_id]) in code.functions.iter().skip(1).enumerate() {
                let name = format!("prog{start}");
                assert_eq!(XDP_DISPATCHER.function(&name).unwrap().btf_id, *btf_id);
                assert_eq!(code.instructions[*at as usize..][..STUB], stub());
            }
        }
        assert_eq!(dispatcher(&slots(MAX_PROGRAMS + 1), &XDP_DISPATCHER, 9), None);
    }

    #[test]
    fn the_map_is_in_the_code_once() {
        let code = dispatcher(&slots(2), &XDP_DISPATCHER, 0x1234).unwrap();
        let loads = code.instructions.iter().filter(|i| **i & 0xff == u64::from(LD_IMM64));
        assert_eq!(loads.map(|i| i >> 32).collect::<Vec<_>>(), [0x1234]);
    }
}
