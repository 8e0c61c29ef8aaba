//! A plain thread that waits for a future, with a time limit: the commit thread belongs to no
//! runtime. It drives no timers and no sockets, only futures that somebody else wakes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the future gives, or `None` when that takes longer than `timeout`; it may be waited for
/// again then. It is asked at least once.
pub(super) fn wait_for<F: Future>(
    mut future: Pin<&mut F>,
    timeout: Option<Duration>,
) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let begun = Instant::now();
    loop {
        // A wake between this and the park makes the park return at once.
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match timeout {
            None => thread::park(),
            Some(timeout) => {
                let left = timeout.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        }
    }
}
