use super::*;
use crate::xsk::Umem;
use crate::xsk::umem::heap::Alive;
use crate::xsk::umem::{Chunks, Geometry};

fn umem(chunks: Chunks) -> Umem {
    let geometry = Geometry { chunks, chunk_size: 2048, frames: 3, headroom: 0, tx_metadata: 0 };
    Umem::on_heap(geometry, &Alive::default())
}

/// As an address it would be the next frame's, which somebody else has.
#[test]
fn a_packet_does_not_begin_where_its_frame_ends() {
    for chunks in [Chunks::Aligned, Chunks::Unaligned] {
        let umem = umem(chunks);
        let frame = umem.frame().unwrap();
        let first = frame.bytes().as_ptr();
        let Rejected { item: frame, refusal } = frame.into_packet_at(2048, 0).unwrap_err();
        assert_eq!(refusal, Refusal::TooLong);
        let mut packet = frame.into_packet_at(0, 2048).unwrap();
        assert_eq!(packet.trim_front(2048), Err(Refusal::TooShort));
        packet.trim_front(2047).unwrap();
        assert_eq!(packet.trim_front(1), Err(Refusal::TooShort));
        packet.set_len(0).unwrap();
        assert_eq!(packet.into_frame().unwrap().bytes().as_ptr(), first);
    }
}

#[test]
fn a_packet_moves_within_its_frame_only() {
    let umem = umem(Chunks::Aligned);
    let mut packet = umem.frame().unwrap().into_packet_at(100, 10).unwrap();
    assert_eq!(packet.extend_front(101), Err(Refusal::TooLong));
    assert_eq!(packet.trim_front(11), Err(Refusal::TooShort));
    assert_eq!(packet.set_len(1949), Err(Refusal::TooLong));
    packet.extend_front(100).unwrap();
    packet.set_len(2048).unwrap();
    assert_eq!((packet.headroom(), packet.tailroom(), packet.len()), (Ok(0), Ok(0), 2048));
}
