//! Both ends beside the inline functions of C libxdp's own header, over memory of the same content: after every operation all
//! bytes of the structures and all words of the rings are equal. C programs have these structures in their own memory,
//! and some look into them.

use super::ends::{Consumer, Producer};
use super::fake::FakeRing;
use super::memory::Mapped;
use libloading::Library;
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

const _: () = assert!(size_of::<Producer<Mapped<u64>>>() == 48);
const _: () = assert!(size_of::<Consumer<Mapped<u64>>>() == 48);

/// `struct xsk_ring_prod` and `struct xsk_ring_cons`: indices, mask, size, then pointers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fields {
    numbers: [u32; 4],
    pointers: [usize; 4],
}

type Count = unsafe extern "C" fn(*mut Fields, u32) -> u32;
type Claim = unsafe extern "C" fn(*mut Fields, u32, *mut u32) -> u32;
type Move = unsafe extern "C" fn(*mut Fields, u32);
type Ask = unsafe extern "C" fn(*mut Fields) -> i32;
type Slot = unsafe extern "C" fn(*mut Fields, u32) -> *const u64;
type Size = unsafe extern "C" fn() -> usize;

/// What is in inline.c.
struct Functions {
    p_size: Size,
    c_size: Size,
    p_free: Count,
    p_reserve: Claim,
    p_submit: Move,
    p_needs_wakeup: Ask,
    p_slot: Slot,
    c_available: Count,
    c_peek: Claim,
    c_cancel: Move,
    c_release: Move,
    c_slot: Slot,
    _library: Library,
}

/// Built once, from the header that is installed (libxdp-dev).
static C: LazyLock<Functions> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("inline.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/inline.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]);
    assert!(compiler.status().unwrap().success(), "cc, with libxdp-dev");
    // SAFETY: it does nothing when it is loaded.
    Functions::new(unsafe { Library::new(library) }.unwrap())
});

impl Functions {
    fn new(library: Library) -> Self {
        Self {
            p_size: function(&library, "p_size"),
            c_size: function(&library, "c_size"),
            p_free: function(&library, "p_free"),
            p_reserve: function(&library, "p_reserve"),
            p_submit: function(&library, "p_submit"),
            p_needs_wakeup: function(&library, "p_needs_wakeup"),
            p_slot: function(&library, "p_slot"),
            c_available: function(&library, "c_available"),
            c_peek: function(&library, "c_peek"),
            c_cancel: function(&library, "c_cancel"),
            c_release: function(&library, "c_release"),
            c_slot: function(&library, "c_slot"),
            _library: library,
        }
    }
}

fn function<F: Copy>(library: &Library, name: &str) -> F {
    // SAFETY: each is asked for by its type in inline.c, and stays as long as the library.
    *unsafe { library.get::<F>(name.as_bytes()) }.unwrap()
}

/// One of C's rings in memory of its own.
struct Theirs {
    fields: Fields,
    ring: Arc<FakeRing<u64>>,
}

impl Theirs {
    /// As xsk.c sets it up.
    fn new(size: u32, start: u32, is_producer: bool) -> Self {
        let ring = FakeRing::new(size, start);
        let ahead = if is_producer { size } else { 0 };
        let numbers = [start, start.wrapping_add(ahead), size.wrapping_sub(1), size];
        Self { fields: Fields { numbers, pointers: ring.addresses() }, ring }
    }

    fn count(&mut self, function: Count, count: u32) -> u32 {
        // SAFETY: of a ring that is there.
        unsafe { function(&raw mut self.fields, count) }
    }

    /// How many, and the first of them if there are any.
    fn claim(&mut self, function: Claim, count: u32) -> (u32, Option<u32>) {
        let mut first = 0;
        // SAFETY: as above.
        let claimed = unsafe { function(&raw mut self.fields, count, &raw mut first) };
        (claimed, (claimed > 0).then_some(first))
    }

    fn move_by(&mut self, function: Move, count: u32) {
        // SAFETY: as above.
        unsafe { function(&raw mut self.fields, count) };
    }

    fn ask(&mut self, function: Ask) -> bool {
        // SAFETY: as above.
        unsafe { function(&raw mut self.fields) != 0 }
    }

    /// Which slot it is.
    fn slot(&mut self, function: Slot, index: u32) -> usize {
        // SAFETY: as above.
        let slot = unsafe { function(&raw mut self.fields, index) };
        (slot.addr() - self.ring.addresses()[2]) / size_of::<u64>()
    }
}

/// All bytes of ours.
fn fields<T>(ours: &T) -> Fields {
    assert_eq!(size_of::<T>(), size_of::<Fields>());
    // SAFETY: of the same size and alignment, without padding.
    unsafe { std::ptr::from_ref(ours).cast::<Fields>().read() }
}

fn words(ring: &FakeRing<u64>) -> [u32; 3] {
    [ring.producer().load(Relaxed), ring.consumer().load(Relaxed), ring.flags().load(Relaxed)]
}

fn compare<T>(ours: &T, ring: &FakeRing<u64>, theirs: &Theirs) {
    let ours = fields(ours);
    assert_eq!(ours.numbers, theirs.fields.numbers, "indices, mask, size");
    // The same places in the memory of each.
    assert_eq!(ours.pointers, ring.addresses());
    assert_eq!(theirs.fields.pointers, theirs.ring.addresses());
    assert_eq!(words(ring), words(&theirs.ring), "what the kernel sees");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// `nb_free`, `nb_avail`
    Look(u32),
    /// `reserve`, `peek`
    Claim(u32),
    /// `submit`, `release`
    Publish(u32),
    /// `cancel`
    Cancel(u32),
    /// `needs_wakeup`, after the kernel has set its flags so.
    Flags(u32),
    /// The kernel moves its index.
    Kernel(u32),
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let count = || prop_oneof![8 => 0..9_u32, 1 => any::<u32>()];
    let step = prop_oneof![
        count().prop_map(Step::Look),
        count().prop_map(Step::Claim),
        count().prop_map(Step::Publish),
        count().prop_map(Step::Cancel),
        (0..4_u32).prop_map(Step::Flags),
        count().prop_map(Step::Kernel),
    ];
    proptest::collection::vec(step, 0..200)
}

fn set_flags(flags: u32, ring: &FakeRing<u64>, theirs: &Theirs) {
    ring.flags().store(flags, Relaxed);
    theirs.ring.flags().store(flags, Relaxed);
}

fn step_producer(
    step: Step,
    ours: &mut Producer<Mapped<u64>>,
    ring: &FakeRing<u64>,
    theirs: &mut Theirs,
) {
    match step {
        Step::Look(count) => assert_eq!(ours.free(count), theirs.count(C.p_free, count)),
        Step::Claim(count) => {
            let first = ours.reserve(count);
            let claimed = first.map_or(0, |_| count);
            assert_eq!((claimed, first.filter(|_| count > 0)), theirs.claim(C.p_reserve, count));
            if let Some(first) = first {
                assert_eq!(ring.index(first), theirs.slot(C.p_slot, first));
            }
        }
        Step::Publish(count) => {
            ours.submit(count);
            theirs.move_by(C.p_submit, count);
        }
        Step::Cancel(_) => {}
        Step::Flags(flags) => {
            set_flags(flags, ring, theirs);
            assert_eq!(ours.needs_wakeup(), theirs.ask(C.p_needs_wakeup));
        }
        Step::Kernel(count) => {
            ring.consumer().fetch_add(count, Relaxed);
            theirs.ring.consumer().fetch_add(count, Relaxed);
        }
    }
}

fn step_consumer(
    step: Step,
    ours: &mut Consumer<Mapped<u64>>,
    ring: &FakeRing<u64>,
    theirs: &mut Theirs,
) {
    match step {
        Step::Look(count) => {
            assert_eq!(ours.available().min(count), theirs.count(C.c_available, count));
        }
        Step::Claim(count) => {
            let (claimed, first) = ours.claim(count);
            assert_eq!((claimed, (claimed > 0).then_some(first)), theirs.claim(C.c_peek, count));
            assert_eq!(ring.index(first), theirs.slot(C.c_slot, first));
        }
        Step::Publish(count) => {
            ours.give_back(count);
            theirs.move_by(C.c_release, count);
        }
        Step::Cancel(count) => {
            ours.cancel(count);
            theirs.move_by(C.c_cancel, count);
        }
        Step::Flags(flags) => set_flags(flags, ring, theirs),
        Step::Kernel(count) => {
            ring.producer().fetch_add(count, Relaxed);
            theirs.ring.producer().fetch_add(count, Relaxed);
        }
    }
}

#[test]
fn structures_are_as_large_as_theirs() {
    for size in [C.p_size, C.c_size] {
        // SAFETY: takes nothing.
        assert_eq!(unsafe { size() }, size_of::<Fields>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_producer_does_as_theirs(steps in any_steps(), log in 0..7_u32, before_wrap in 0..20_u32) {
        let (size, start) = (1 << log, before_wrap.wrapping_neg());
        let (ring, mut theirs) = (FakeRing::new(size, start), Theirs::new(size, start, true));
        // SAFETY: the ring's only producer.
        let mut ours = unsafe { Producer::new(size, ring.memory()) };
        compare(&ours, &ring, &theirs);
        for step in steps {
            step_producer(step, &mut ours, &ring, &mut theirs);
            compare(&ours, &ring, &theirs);
        }
    }

    #[test]
    fn a_consumer_does_as_theirs(steps in any_steps(), log in 0..7_u32, before_wrap in 0..20_u32) {
        let (size, start) = (1 << log, before_wrap.wrapping_neg());
        let (ring, mut theirs) = (FakeRing::new(size, start), Theirs::new(size, start, false));
        // SAFETY: the ring's only consumer.
        let mut ours = unsafe { Consumer::new(size, ring.memory()) };
        compare(&ours, &ring, &theirs);
        for step in steps {
            step_consumer(step, &mut ours, &ring, &mut theirs);
            compare(&ours, &ring, &theirs);
        }
    }
}
