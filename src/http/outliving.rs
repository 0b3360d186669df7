//! Work that must come to its end although its client may go away. The shutdown waits for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Runs `work` to its end, whether or not its client waits for it. It gets a task of its own only when the client
/// goes away: every task more is a wait for its turn.
pub async fn finish<T: Send + 'static>(
    unfinished: &TaskTracker,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let mut outliving = Outliving {
        work: Some(Box::pin(work)),
        unfinished: unfinished.clone(),
    };
    poll_fn(|cx| outliving.poll(cx)).await
}

/// Work that goes on behind whoever drops it.
struct Outliving<W: Future<Output: Send + 'static> + Send + 'static> {
    /// None once it has ended.
    work: Option<Pin<Box<W>>>,
    unfinished: TaskTracker,
}

impl<W: Future<Output: Send + 'static> + Send + 'static> Outliving<W> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<W::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<W: Future<Output: Send + 'static> + Send + 'static> Drop for Outliving<W> {
    fn drop(&mut self) {
        // Work that has panicked has ended.
        let Some(work) = self.work.take().filter(|_| !std::thread::panicking()) else {
            return;
        };
        // Without a runtime the process is gone.
        if let Ok(runtime) = Handle::try_current() {
            self.unfinished.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_that_is_waited_for_needs_no_task() {
        let unfinished = TaskTracker::new();
        let (go_on, told) = oneshot::channel();
        let work = finish(&unfinished, async { told.await.unwrap() });
        let answer = async {
            assert!(unfinished.is_empty());
            go_on.send(1).unwrap();
        };
        assert_eq!(tokio::join!(work, answer).0, 1);
        assert!(unfinished.is_empty());
    }

    #[tokio::test]
    async fn work_goes_on_behind_a_client_that_has_gone() {
        let unfinished = TaskTracker::new();
        let (go_on, told) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let work = finish(&unfinished, async {
            ended.send(told.await.unwrap()).unwrap();
        });
        tokio::select! {
            biased;
            () = work => panic!("nothing has told it to end"),
            () = async {} => {}
        }
        assert_eq!(unfinished.len(), 1);
        go_on.send(1).unwrap();
        assert_eq!(end.await, Ok(1));
        unfinished.close();
        unfinished.wait().await;
    }
}
