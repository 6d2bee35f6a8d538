//! The order of the files that are taken in one turn.

use std::sync::Arc;

use tokio::sync::watch;

/// The position of a file among those that are taken in the same turn: they are read at the same time, and committed
/// in their order, together. Dropped, it keeps nobody waiting.
pub struct Position {
    n: usize,
    /// Which of them have asked for their commits, or will not.
    past: Arc<watch::Sender<Vec<bool>>>,
}

impl Position {
    /// So many, in their order.
    pub fn in_a_row(n: usize) -> Vec<Self> {
        let past = Arc::new(watch::Sender::new(vec![false; n]));
        (0..n).map(|n| Self { n, past: Arc::clone(&past) }).collect()
    }

    /// Makes `commit` wait until all before it were asked for, or will not be. Those behind it need not wait for its
    /// end.
    pub async fn commit<T>(self, commit: impl Future<Output = T>) -> T {
        let mut past = self.past.subscribe();
        // It is not closed: this position has the other end.
        let before = past.wait_for(|past| past.iter().take(self.n).all(|past| *past)).await.map(drop);
        debug_assert!(before.is_ok(), "its sender is here");
        // The first poll of a commit hands it to the writer.
        tokio::join!(biased; commit, async { drop(self) }).0
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.past.send_modify(|past| {
            if let Some(past) = past.get_mut(self.n) {
                *past = true;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn commits_are_asked_for_in_their_order_and_end_together() {
        let asked = Mutex::new(Vec::new());
        let last_asked = tokio::sync::Semaphore::new(0);
        let mut positions: Vec<_> = Position::in_a_row(5).into_iter().enumerate().collect();
        // One has nothing to commit. Of the others, whoever comes first has to wait.
        drop(positions.remove(3));
        positions.reverse();
        let commits = positions.into_iter().map(|(n, position)| {
            let (asked, last_asked) = (&asked, &last_asked);
            position.commit(async move {
                asked.lock().unwrap().push(n);
                if n == 4 {
                    last_asked.close();
                }
                assert!(last_asked.acquire().await.is_err(), "it ends once the last was asked for");
            })
        });
        join_all(commits).await;
        assert_eq!(*asked.lock().unwrap(), [0, 1, 2, 4]);
    }
}
