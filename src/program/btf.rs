//! A reader for BTF (Documentation/bpf/btf.rst), as far as the protocol needs it.
//!
//! Reads bytes that anybody may have made: a wrong offset or id is an answer of "nothing there".

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_TYPE_TAG: u32 = 18;
/// How many typedefs and qualifiers are followed; a chain that is longer bites its own tail.
const MAX_DEPTH: usize = 32;

/// How deep types may lie in each other, and how many parts one may have, counting those of its parts.
const MAX_NESTING: u32 = 256;
const MAX_PARTS: u64 = 1 << 20;

/// BTF that has been walked once: every type's start is known and within the data.
#[derive(Debug)]
pub(crate) struct Btf {
    data: Vec<u8>,
    /// Start of the string section in `data`.
    strings: usize,
    /// Start of each type in `data`; index 0 is type 1.
    types: Vec<usize>,
}

/// The fixed head of a type.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    members: usize,
    /// The type it refers to, or its size.
    other: u32,
}

/// What is known of how types lie in each other.
#[derive(Clone)]
enum Nesting {
    Unknown,
    /// It is being walked: whoever comes here again goes in a circle.
    Open,
    Known(u32, u64),
}

/// The walk of one type's parts.
struct Walk {
    id: u32,
    parts: std::vec::IntoIter<u32>,
    depth: u32,
    count: u64,
}

impl Walk {
    fn add(&mut self, (depth, count): (u32, u64)) {
        self.depth = self.depth.max(depth);
        self.count = self.count.saturating_add(count);
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Btf {
    /// Walks `data`; the error says where it is broken.
    pub(crate) fn parse(data: Vec<u8>) -> Result<Self, String> {
        let truncated = || "BTF is cut off".to_owned();
        let head = word(&data, 0).ok_or_else(truncated)?;
        if head.to_ne_bytes().first_chunk() != Some(&MAGIC.to_ne_bytes()) {
            return Err("no BTF magic".into());
        }
        let field = |at| word(&data, at).map(|word| word as usize).ok_or_else(truncated);
        let header = field(4)?;
        if header < HEADER {
            return Err(format!("BTF header of {header} bytes"));
        }
        let span = |offset: usize, length: usize| {
            let start = header.checked_add(offset).ok_or_else(truncated)?;
            let end = start.checked_add(length).ok_or_else(truncated)?;
            if end > data.len() { Err(truncated()) } else { Ok(start..end) }
        };
        let section = span(field(8)?, field(12)?)?;
        let strings = span(field(16)?, field(20)?)?;
        let mut btf = Self { strings: strings.start, types: Vec::new(), data };
        btf.data.truncate(section.end.max(strings.end));
        let mut at = section.start;
        while at < section.end {
            let size = btf
                .type_at(at)
                .and_then(Type::size)
                .ok_or_else(|| format!("BTF type {} is malformed", btf.types.len() + 1))?;
            if at + size > section.end {
                return Err(truncated());
            }
            btf.types.push(at);
            at += size;
        }
        Ok(btf)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(&self.data, at + 4)?;
        Some(Type {
            at,
            name: word(&self.data, at)?,
            kind: (info >> 24) & 0x1f,
            members: (info & 0xffff) as usize,
            other: word(&self.data, at + 8)?,
        })
    }

    fn get(&self, id: u32) -> Option<Type> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        self.type_at(*self.types.get(index)?)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (1_u32..).zip(&self.types).map(|(id, _)| id)
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let start = self.strings.checked_add(offset as usize)?;
        let rest = self.data.get(start..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        self.ids().find(|&id| {
            self.get(id).is_some_and(|t| t.kind == kind && self.string(t.name) == Some(name))
        })
    }

    /// Words `count` of element `index` behind the head of `of`.
    fn element<const N: usize>(&self, of: Type, index: usize) -> Option<[u32; N]> {
        let start = of.at + 12 + index * N * 4;
        let mut words = [0; N];
        for (number, to) in words.iter_mut().enumerate() {
            *to = word(&self.data, start + number * 4)?;
        }
        Some(words)
    }

    /// Name of the function with this type id.
    pub(crate) fn function_name(&self, id: u32) -> Option<&str> {
        let function = self.get(id)?;
        if function.kind == KIND_FUNC { self.string(function.name) } else { None }
    }

    /// Whether there is a section of this name.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.find(KIND_DATASEC, name).is_some()
    }

    /// Type id of the function called `name`.
    #[cfg(test)]
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        self.find(KIND_FUNC, name)
    }

    /// The variable `name` in section `section`: its type id, and offset and size there in bytes.
    pub(crate) fn variable(&self, section: &str, name: &str) -> Option<(u32, usize, usize)> {
        let section = self.get(self.find(KIND_DATASEC, section)?)?;
        (0..section.members).find_map(|index| {
            let [id, offset, size] = self.element(section, index)?;
            let variable = self.get(id)?;
            let fits = variable.kind == KIND_VAR && self.string(variable.name) == Some(name);
            fits.then_some((variable.other, offset as usize, size as usize))
        })
    }

    /// Offset and size, in bytes, of each structure among the variables of a section.
    pub(super) fn structures_in(&self, section: &str) -> Vec<(usize, usize)> {
        let sections = self.ids().filter_map(|id| self.get(id));
        let is_it = |of: &Type| of.kind == KIND_DATASEC && self.string(of.name) == Some(section);
        let structure = |of, index| {
            let [variable, offset, _] = self.element(of, index)?;
            let of = self.without_qualifiers(variable)?;
            (of.kind == KIND_STRUCT).then_some((offset as usize, of.other as usize))
        };
        let all = sections.filter(is_it);
        all.flat_map(|of| (0..of.members).filter_map(move |index| structure(of, index))).collect()
    }

    /// Refuses types that contain themselves, are nested deeper than any compiler's, or have more parts than can be
    /// walked: a reader that trusts them would not come back.
    pub(super) fn check_nesting(&self) -> Result<(), String> {
        // Each type's depth, and the number of its parts and of theirs.
        let mut known = vec![Nesting::Unknown; self.types.len() + 1];
        for root in self.ids() {
            let mut path: Vec<_> = self.begin(root, &mut known).into_iter().collect();
            while let Some(walk) = path.last_mut() {
                let id = walk.id;
                let Some(part) = walk.parts.next() else {
                    let done = (walk.depth + 1, walk.count.saturating_add(1));
                    if done.0 > MAX_NESTING || done.1 > MAX_PARTS {
                        return Err(format!("BTF type {id} is nested too deep"));
                    }
                    if let Some(known) = known.get_mut(id as usize) {
                        *known = Nesting::Known(done.0, done.1);
                    }
                    path.pop();
                    if let Some(above) = path.last_mut() {
                        above.add(done);
                    }
                    continue;
                };
                match known.get(part as usize) {
                    Some(Nesting::Known(depth, count)) => walk.add((*depth, *count)),
                    Some(Nesting::Open) => return Err(format!("BTF type {part} contains itself")),
                    _ => path.extend(self.begin(part, &mut known)),
                }
            }
        }
        Ok(())
    }

    /// Begins to walk a type, unless that is done or there is none.
    fn begin(&self, id: u32, known: &mut [Nesting]) -> Option<Walk> {
        let parts = self.parts(id)?.into_iter();
        let state = known.get_mut(id as usize).filter(|state| matches!(state, Nesting::Unknown))?;
        *state = Nesting::Open;
        Some(Walk { id, parts, depth: 0, count: 0 })
    }

    /// The types that values of this type contain, or that it is another name for.
    fn parts(&self, id: u32) -> Option<Vec<u32>> {
        let of = self.get(id)?;
        let part = |index| self.element(of, index).map(|[_, part, _]| part);
        Some(match of.kind {
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG
            | KIND_VAR => vec![of.other],
            KIND_ARRAY => self.element(of, 0).map(|[item, index, _]| vec![item, index])?,
            KIND_STRUCT | KIND_UNION => (0..of.members).filter_map(part).collect(),
            _ => Vec::new(),
        })
    }

    fn without_qualifiers(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let this = self.get(id)?;
            match this.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG
                | KIND_VAR => {
                    id = this.other;
                }
                _ => return Some(this),
            }
        }
        None
    }

    /// Name and type id of each member of a structure; `None` if `id` is something else or broken.
    pub(crate) fn members(&self, id: u32) -> Option<Vec<(&str, u32)>> {
        let of = self.without_qualifiers(id)?;
        if of.kind != KIND_STRUCT {
            return None;
        }
        (0..of.members)
            .map(|index| {
                let [name, member, _] = self.element(of, index)?;
                Some((self.string(name)?, member))
            })
            .collect()
    }

    /// The number that `__uint(name, number)` encodes: the length of the array that a pointer points to.
    pub(crate) fn encoded_number(&self, id: u32) -> Option<u32> {
        let pointer = self.without_qualifiers(id)?;
        if pointer.kind != KIND_PTR {
            return None;
        }
        let array = self.get(pointer.other)?;
        if array.kind != KIND_ARRAY {
            return None;
        }
        let [_, _, length] = self.element(array, 0)?;
        Some(length)
    }
}

impl Type {
    /// Head and tail, in bytes; `None` for a kind whose tail is not known.
    fn size(self) -> Option<usize> {
        let tail = match self.kind {
            1 | 14 | 17 => 4,                     // INT, VAR, DECL_TAG
            2 | 7..=12 | 16 | 18 => 0,            // PTR, FWD, TYPEDEF … FUNC, FLOAT, TYPE_TAG
            3 => 12,                              // ARRAY
            4 | 5 | 15 | 19 => self.members * 12, // STRUCT, UNION, DATASEC, ENUM64
            6 | 13 => self.members * 8,           // ENUM, FUNC_PROTO
            _ => return None,
        };
        Some(12 + tail)
    }
}

/// BTF for a program that has none, and the type id of each of its functions: `int name(struct xdp_md *ctx)`,
/// which is all that the kernel asks of a component (kernel/bpf/btf.c, `btf_check_func_type_match`), and
/// `subprograms` static functions of which it asks nothing.
pub(crate) fn made_up(name: &str, subprograms: usize) -> (Vec<u8>, Vec<u32>) {
    const GLOBAL: u32 = 1;
    const SIGNED: u32 = 1 << 24;
    let mut strings = vec![0];
    let mut string = |text: &str| {
        let at = strings.len();
        strings.extend(text.bytes().filter(|byte| *byte != 0));
        strings.push(0);
        u32::try_from(at).unwrap_or(0)
    };
    let kind = |kind: u32, more: u32| (kind << 24) | more;
    let mut types = [
        [string("int"), kind(KIND_INT, 0), 4].as_slice(),
        &[SIGNED | 32],
        &[string("xdp_md"), kind(KIND_STRUCT, 0), 0],
        &[0, kind(KIND_PTR, 0), 2],
        &[0, kind(KIND_FUNC_PROTO, 1), 1],
        &[string("ctx"), 3],
        &[string(name), kind(KIND_FUNC, GLOBAL), 4],
        &[0, kind(KIND_FUNC_PROTO, 0), 0],
    ]
    .concat();
    let mut ids = vec![5];
    for number in 0..subprograms {
        types.extend([string(&format!("subprogram_{number}")), kind(KIND_FUNC, 0), 6]);
        ids.push(u32::try_from(number + 7).unwrap_or(0));
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let (types_size, strings_size) = (length(types.len() * 4), length(strings.len()));
    let magic = 0x0001_0000 | u32::from(MAGIC);
    let header = [magic, length(HEADER), 0, types_size, types_size, strings_size];
    let words = header.into_iter().chain(types);
    (words.flat_map(u32::to_ne_bytes).chain(strings).collect(), ids)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The `.BTF` section of a shipped object.
    pub(crate) fn btf_of(elf: &[u8]) -> Vec<u8> {
        use object::{Object, ObjectSection};
        let file = object::File::parse(elf).unwrap();
        file.section_by_name(".BTF").unwrap().data().unwrap().to_vec()
    }

    fn dispatcher() -> Vec<u8> {
        btf_of(include_bytes!("../../bpf/prebuilt/xdp_dispatcher.o"))
    }

    #[test]
    fn reads_the_dispatcher_s() {
        let btf = Btf::parse(dispatcher()).unwrap();
        let (version, ..) = btf.variable("xdp_metadata", "dispatcher_version").unwrap();
        assert_eq!(btf.encoded_number(version), Some(3));
        let prog9 = btf.function("prog9").unwrap();
        assert_eq!(btf.function_name(prog9), Some("prog9"));
        assert_eq!(btf.function("prog10"), None);
        assert_eq!(btf.function_name(version), None);
        let (conf, ..) = btf.variable(".rodata", "conf").unwrap();
        let members = btf.members(conf).unwrap();
        assert_eq!(members.first().unwrap().0, "magic");
        assert_eq!(members.len(), 8);
        assert_eq!(btf.encoded_number(0), None);
        assert_eq!(btf.encoded_number(u32::MAX), None);
    }

    #[test]
    fn made_up_btf_can_be_read() {
        let (data, ids) = made_up("xdp_main", 2);
        let btf = Btf::parse(data).unwrap();
        let names: Vec<_> = ids.iter().map(|id| btf.function_name(*id).unwrap()).collect();
        assert_eq!(names, ["xdp_main", "subprogram_0", "subprogram_1"]);
        let small = made_up("xdp_main", 0).0.len();
        assert!(small < 160, "{small} bytes");
    }

    #[test]
    fn a_typedef_of_itself_ends() {
        let mut data = Vec::new();
        for word in [0x0001_eb9f_u32, 24, 0, 12, 12, 1, 0, KIND_TYPEDEF << 24, 1] {
            data.extend(word.to_ne_bytes());
        }
        data.push(0);
        let btf = Btf::parse(data).unwrap();
        assert_eq!(btf.encoded_number(1), None);
        assert_eq!(btf.members(1), None);
        assert!(btf.check_nesting().unwrap_err().contains("itself"));
    }

    /// BTF of nothing but these words of types.
    fn of(types: &[u32]) -> Btf {
        let size = u32::try_from(types.len() * 4).unwrap();
        let head = [0x0001_eb9f, 24, 0, size, size, 1];
        let words = head.iter().chain(types).flat_map(|word| word.to_ne_bytes());
        Btf::parse(words.chain([0]).collect()).unwrap()
    }

    #[test]
    fn types_must_end() {
        // Each of 40 structures holds the one before twice: 2^40 parts.
        let mut doubled = vec![0, KIND_STRUCT << 24, 4];
        for id in 1..40 {
            doubled.extend([0, (KIND_STRUCT << 24) | 2, 4, 0, id, 0, 0, id, 0]);
        }
        assert!(of(&doubled).check_nesting().is_err());
        let deep: Vec<_> = (2..400).flat_map(|id| [0, KIND_TYPEDEF << 24, id]).collect();
        assert!(of(&deep).check_nesting().is_err());
        // A structure with a pointer to itself is what lists are made of.
        let list = [0, (KIND_STRUCT << 24) | 1, 8, 0, 2, 0, 0, KIND_PTR << 24, 1];
        of(&list).check_nesting().unwrap();
        let held = [0, (KIND_STRUCT << 24) | 1, 8, 0, 1, 0];
        assert!(of(&held).check_nesting().is_err());
    }

    proptest! {
        #[test]
        fn broken_bytes_are_refused_or_read(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut: prop::sample::Index,
        ) {
            let mut data = dispatcher();
            for (index, byte) in changes {
                let at = index.index(data.len());
                data[at] = byte;
            }
            for data in [data[..cut.index(data.len())].to_vec(), data] {
                let Ok(btf) = Btf::parse(data) else { continue };
                for id in btf.ids() {
                    let _ = (btf.encoded_number(id), btf.members(id), btf.function_name(id));
                }
                let _ = btf.variable("xdp_metadata", "dispatcher_version");
            }
        }
    }
}
