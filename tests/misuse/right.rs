// nothing: what is right compiles, so that the others fail for what they do wrong
use oxdp::xsk::{FillBatch, Frame, FrameCache, Packet, RxRing, TxBatch, Umem};

fn right(umem: &Umem, rx: &mut RxRing, mut fill: FillBatch<'_>, mut tx: TxBatch<'_>, mut cache: FrameCache) {
    let frame: Frame = umem.frame().unwrap();
    fill.push(frame).unwrap();
    let mut batch = rx.peek(8).unwrap();
    batch.recycle(&mut fill, |mut view| view.data_mut().unwrap().fill(0));
    let packets: Vec<Packet> = batch.collect();
    let sent = std::thread::spawn(move || packets.into_iter().map(|packet| packet.data().unwrap().len()).sum::<usize>());
    sent.join().unwrap();
    tx.push(cache.take().unwrap().into_packet_of(b"bytes").unwrap()).unwrap();
    fill.commit();
    tx.commit();
}

fn main() {
    let _ = right;
}
