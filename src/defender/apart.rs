//! Work on a large answer, which must not keep other tasks waiting.

use tokio::runtime::{Handle, RuntimeFlavor};

use super::Reply;

/// What is smaller is read in a few milliseconds, where it is.
const LARGE: usize = 512 * 1024;

/// Reads an answer. A large one on a thread whose other tasks go elsewhere meanwhile, where the runtime has
/// several; on a runtime of one thread, as in virtual time, nothing happens until it is done.
pub fn apart<T>(reply: &Reply, read: impl FnOnce(&Reply) -> T) -> T {
    let several = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if several && reply.text.len() >= LARGE { tokio::task::block_in_place(|| read(reply)) } else { read(reply) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn while_a_large_answer_is_read_other_tasks_go_on() {
        let (done, other) = mpsc::channel();
        let reading = tokio::spawn(async move {
            tokio::spawn(async move { done.send(()) });
            let large = Reply { text: " ".repeat(LARGE), ..Reply::default() };
            apart(&large, |_| other.recv_timeout(Duration::from_mins(1)))
        });
        reading.await.unwrap().expect("the only worker was busy with the answer");
    }

    #[tokio::test]
    async fn on_one_thread_it_is_read_where_it_is() {
        let large = Reply { text: " ".repeat(LARGE), ..Reply::default() };
        assert_eq!(apart(&large, |reply| reply.text.len()), LARGE);
    }
}
