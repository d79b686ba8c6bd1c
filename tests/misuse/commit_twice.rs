// E0382: a batch is published twice
use oxdp::xsk::TxBatch;

fn misuse(tx: TxBatch<'_>) {
    tx.commit();
    tx.commit();
}

fn main() {
    let _ = misuse;
}
