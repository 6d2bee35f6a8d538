//! The one connection that writes, and groups what waits into one commit.
//!
//! With `synchronous = FULL` a commit is an fsync, a few milliseconds on a real disk. A thousand
//! lanes need hundreds of writes a second: so whatever has queued up while one commit ran shares
//! the next, each unit in a savepoint of its own.

use std::fmt;

use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::landmark::Landmark;
use super::under_way::{Operation, UnderWay};
use super::write_lock::Beginning;
use super::{Doing, StoreError, events};
use crate::domain::shown::ShownPath;

/// What a unit of work returns: a future on the connection it was given.
pub type Unit<'c, T> = BoxFuture<'c, Result<T, StoreError>>;

/// So many units at most share a commit: what waits behind them must not wait for long.
const GROUP: usize = 64;

/// So many rows at most do. A unit of which nobody says how many it takes in counts as a few dozen.
const ROWS: usize = 2000;
const FEW: usize = ROWS / GROUP;

/// Called once the group's fate is known.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A unit, and whom to tell.
trait Work: Send {
    /// Runs the unit and says why it did not hold, if so.
    fn run(self: Box<Self>, connection: &mut SqliteConnection) -> BoxFuture<'_, (Option<StoreError>, Finish)>;
    /// The unit cannot be run.
    fn refuse(self: Box<Self>, error: StoreError);
}

struct Asked<T, F> {
    unit: F,
    reply: oneshot::Sender<Result<T, StoreError>>,
    /// Goes with the work, not with whoever asked for it: it is under way though nobody waits.
    operation: Operation,
}

impl<T, F> Work for Asked<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Unit<'c, T> + Send + 'static,
{
    fn run(self: Box<Self>, connection: &mut SqliteConnection) -> BoxFuture<'_, (Option<StoreError>, Finish)> {
        Box::pin(async move {
            let Self { unit, reply, operation } = *self;
            let result = unit(connection).await;
            let failed = result.as_ref().err().cloned();
            let finish: Finish = Box::new(move |committed| {
                // Whoever asked may have gone (a cancelled task): the work stands all the same.
                drop(reply.send(committed.and(result)));
                drop(operation);
            });
            (failed, finish)
        })
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        drop(self.reply.send(Err(error)));
    }
}

enum Order {
    /// In a transaction, with so many rows.
    InTransaction(Box<dyn Work>, usize),
    /// Between transactions.
    Outside(Box<dyn Work>),
    /// Begin a transaction and end it: the wait for it shows whether anything could be written.
    Probe,
    /// Note there from now on what is committed.
    Keep(Landmark),
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    under_way: UnderWay,
    beginning: Beginning,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection, under_way: UnderWay) -> Self {
        let (orders, waiting) = mpsc::channel(1024);
        let beginning = Beginning::default();
        tokio::spawn(serve(connection, waiting, beginning.clone()));
        Self { orders, under_way, beginning }
    }

    /// See [`super::Store::waits_to_begin`].
    pub(super) fn waits_to_begin(&self) -> Option<u64> {
        self.beginning.waits()
    }

    /// `rows` says how many rows the unit takes in beside a few.
    pub(super) async fn write<T, F>(&self, rows: usize, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Unit<'c, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Asked { unit, reply, operation: self.under_way.begin() });
        self.order(Order::InTransaction(work, rows.saturating_add(FEW)), answer).await
    }

    pub(super) async fn outside<T, F>(&self, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Unit<'c, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Outside(Box::new(Asked { unit, reply, operation: self.under_way.begin() })), answer).await
    }

    async fn order<T>(&self, order: Order, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        self.orders.send(order).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn keep(&self, landmark: Landmark) -> Result<(), StoreError> {
        self.orders.send(Order::Keep(landmark)).await.map_err(|_| StoreError::Closed)
    }

    /// See [`super::Store::probe_writer`].
    pub(super) fn probe(&self) {
        // Full, the queue has writes that show the same.
        if !self.beginning.set_probe_queued(true) && self.orders.try_send(Order::Probe).is_err() {
            self.beginning.set_probe_queued(false);
        }
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            drop(closed.await);
        }
    }
}

async fn serve(mut connection: SqliteConnection, mut waiting: mpsc::Receiver<Order>, beginning: Beginning) {
    let mut orders = Vec::with_capacity(GROUP);
    let mut closed = None;
    let mut landmark = None;
    while closed.is_none() && waiting.recv_many(&mut orders, GROUP).await > 0 {
        let mut group = Vec::with_capacity(orders.len());
        let mut room = ROWS;
        for order in orders.drain(..) {
            match order {
                Order::InTransaction(work, rows) => {
                    if rows > room && !group.is_empty() {
                        commit(&mut connection, std::mem::take(&mut group), &mut landmark, &beginning).await;
                        room = ROWS;
                    }
                    room = room.saturating_sub(rows);
                    group.push(work);
                }
                Order::Outside(work) => {
                    let (_, finish) = work.run(&mut connection).await;
                    finish(Ok(()));
                }
                Order::Probe => {
                    probe(&mut connection, &beginning).await;
                    beginning.set_probe_queued(false);
                }
                Order::Keep(kept) => landmark = Some(kept),
                Order::Close(done) => closed = Some(done),
            }
        }
        if !group.is_empty() {
            commit(&mut connection, group, &mut landmark, &beginning).await;
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly; its log is replayed at the next start");
    }
    // Dropped, the sender tells whoever asked that it is closed.
    drop(closed);
}

async fn probe(connection: &mut SqliteConnection, beginning: &Beginning) {
    if beginning.begin(connection).await.is_ok()
        && let Err(error) = sqlx::query("ROLLBACK").execute(connection).await
    {
        tracing::debug!(%error, "an empty transaction does not end");
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    group: Vec<Box<dyn Work>>,
    landmark: &mut Option<Landmark>,
    beginning: &Beginning,
) {
    let mut finishes = Vec::with_capacity(group.len());
    let fate = run(connection, group, &mut finishes, beginning).await;
    if fate.is_err() {
        // SQLite may have rolled back by itself (a full disk does that), and then says that there
        // is no transaction: either way none is open afterwards.
        if let Err(error) = sqlx::query("ROLLBACK").execute(&mut *connection).await {
            tracing::debug!(%error, "nothing left to roll back");
        }
    } else {
        // Before anybody acts on what is committed.
        note(connection, landmark).await;
    }
    for finish in finishes {
        finish(fate.clone());
    }
}

/// Notes where the record stands now. A note that cannot be written is told once, and not tried again: an older
/// one does no harm.
async fn note(connection: &mut SqliteConnection, landmark: &mut Option<Landmark>) {
    let Some(kept) = landmark else { return };
    let noted = match events::head(connection).await {
        Ok(head) => kept.note(&head).map_err(|error| format!("{}: {error}", ShownPath::new(&kept.path()))),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = noted {
        tracing::warn!(
            error,
            "where the record stands cannot be noted: an older copy of the database put in its place is noticed later"
        );
        *landmark = None;
    }
}

/// Runs the group up to its commit. Whoever could not be run has been refused.
async fn run(
    connection: &mut SqliteConnection,
    group: Vec<Box<dyn Work>>,
    finishes: &mut Vec<Finish>,
    beginning: &Beginning,
) -> Result<(), StoreError> {
    let mut fate = beginning.begin(connection).await;
    for work in group {
        match &fate {
            Ok(()) => fate = one(connection, work, finishes).await,
            Err(error) => work.refuse(error.clone()),
        }
    }
    fate?;
    sqlx::query("COMMIT").execute(&mut *connection).await.doing("commit").map(drop)
}

/// One unit in its savepoint. An error here is the group's, not the unit's.
async fn one(
    connection: &mut SqliteConnection,
    work: Box<dyn Work>,
    finishes: &mut Vec<Finish>,
) -> Result<(), StoreError> {
    if let Err(error) = sqlx::query("SAVEPOINT unit").execute(&mut *connection).await.doing("set a savepoint") {
        work.refuse(error.clone());
        return Err(error);
    }
    let (failed, finish) = work.run(&mut *connection).await;
    finishes.push(finish);
    if let Some(why) = failed
        && let Err(error) =
            sqlx::query("ROLLBACK TO unit").execute(&mut *connection).await.doing("take back a savepoint")
    {
        // On a full disk SQLite rolls back all of it by itself: that is why the group fails, and
        // not that the savepoint is gone. A guard of one unit is no word about its neighbours.
        return Err(if matches!(why, StoreError::Database { .. }) { why } else { error });
    }
    sqlx::query("RELEASE unit").execute(&mut *connection).await.doing("release a savepoint").map(drop)
}
