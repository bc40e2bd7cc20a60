//! A future that settles before it rests.
//!
//! A connection wakes itself while it is polled: its own handler asks it for the body of the request. The runtime would put it at
//! the end of its queue for that and wake a sleeping thread to look whether there is work to share, two system calls and a change
//! of threads for each request. Here such a wake only has the future polled once more.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in a row. A future that still wakes itself then has more to do than to settle, and shares the thread with others.
const MOST: usize = 3;

/// What the future is woken by.
#[derive(Default)]
struct Bell {
    task: AtomicWaker,
    polling: AtomicBool,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: whoever ends a poll looks at `rung` after it has said so.
        self.rung.store(true, SeqCst);
        if !self.polling.load(SeqCst) {
            self.task.wake();
        }
    }
}

pub(super) async fn settled<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    poll_fn(|cx| {
        bell.task.register(cx.waker());
        for _ in 0..MOST {
            bell.rung.store(false, SeqCst);
            bell.polling.store(true, SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            bell.polling.store(false, SeqCst);
            if polled.is_ready() || !bell.rung.swap(false, SeqCst) {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::task::noop_waker;
    use tokio::sync::mpsc;

    use super::*;

    /// Counts how often the task was woken.
    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Wakes itself so often before it is done.
    fn restless(mut times: usize) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            if times == 0 {
                return Poll::Ready(());
            }
            times -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn a_wake_of_its_own_is_answered_on_the_spot_and_a_restless_one_lets_others_go_first() {
        for (times, polls, wakes) in [(0, 1, 0), (2, 1, 0), (3, 2, 1), (7, 3, 2)] {
            let counts = Arc::new(Counts::default());
            let waker = Waker::from(Arc::clone(&counts));
            let mut future = pin!(settled(restless(times)));
            let mut polled = 1;
            while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                polled += 1;
            }
            assert_eq!((polled, counts.0.load(SeqCst)), (polls, wakes), "{times}");
        }
    }

    #[test]
    fn a_wake_from_outside_reaches_the_task_that_polled_last() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut future = pin!(settled(async move { receiver.recv().await }));
        assert!(future.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_pending());
        let counts = Arc::new(Counts::default());
        let waker = Waker::from(Arc::clone(&counts));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        sender.try_send(7).expect("room");
        assert_eq!(counts.0.load(SeqCst), 1);
        assert_eq!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Some(7)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        let (sender, mut receiver) = mpsc::channel(1);
        let sending = tokio::task::spawn_blocking(move || (0..20_000).for_each(|n| sender.blocking_send(n).expect("someone reads")));
        let mut next = 0;
        settled(async {
            while let Some(n) = receiver.recv().await {
                assert_eq!(n, next);
                next += 1;
            }
        })
        .await;
        assert_eq!(next, 20_000);
        sending.await.expect("sent");
    }
}
