//! The network between a worker and the coordinator: messages of a session keep their order, are late, and stop when the
//! line is cut or silent.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::random::Random;

/// Longest time of a message on its way, in milliseconds.
const DELAY_MS: u64 = 30;
/// Messages on their way in one direction.
const CAPACITY: usize = 64;

/// The line of one worker, whatever sessions use it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    random: Arc<Mutex<Random>>,
    silent: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
}

/// One direction of a session.
pub(crate) type Pipe<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

impl Line {
    pub(crate) fn new(random: Random) -> Self {
        Self { random: Arc::new(Mutex::new(random)), silent: watch::Sender::new(false), cuts: watch::Sender::new(0) }
    }

    /// Nothing comes through, and neither end knows.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Every session over it ends.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// A direction of a session that ends with `closed`, which a cut ends too.
    pub(crate) fn pipe<T: Send + 'static>(&self, closed: CancellationToken) -> Pipe<T> {
        let (sender, mut sent) = mpsc::channel(CAPACITY);
        let (deliver, receiver) = mpsc::channel(CAPACITY);
        let line = self.clone();
        let mut cuts = self.cuts.subscribe();
        tokio::spawn(async move {
            let carry = async {
                let mut silent = line.silent.subscribe();
                while let Some(message) = sent.recv().await {
                    let delay = line.random.lock().millis(0..DELAY_MS);
                    tokio::time::sleep(delay).await;
                    let heard = silent.wait_for(|silent| !silent).await.is_ok();
                    if !heard || deliver.send(message).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = closed.cancelled() => {}
                _ = cuts.changed() => closed.cancel(),
                () = carry => {}
            }
        });
        (sender, receiver)
    }
}
