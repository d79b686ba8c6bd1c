use super::{Rules, drill};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn all_goes_well_with_an_honest_kernel(bytes in any_moves()) {
        drill(&bytes, Rules { lies: false, forgets: true });
    }

    #[test]
    fn a_kernel_that_lies_gets_errors(bytes in any_moves()) {
        drill(&bytes, Rules { lies: true, forgets: true });
    }
}

/// An interpreter, or a sanitizer, has less time.
fn cases() -> u32 {
    let wanted = std::env::var("OXDP_DRILLS").ok().and_then(|count| count.parse().ok());
    wanted.unwrap_or(if cfg!(miri) { 8 } else { 1000 })
}

fn any_moves() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..if cfg!(miri) { 150 } else { 600 })
}
