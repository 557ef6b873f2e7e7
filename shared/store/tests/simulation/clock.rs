//! Virtual time and the scheduler: what runs when depends on the seed alone.
//!
//! A task runs until it waits. When all wait, the clock goes to the next timer. Of several tasks that may go on, one is chosen by lot.
//! A frozen owner's tasks are not polled until it thaws; a killed owner's tasks are dropped where they wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::rng::Rng;

/// Whose task it is: a process, or [`WEATHER`].
pub(crate) type Owner = usize;
/// The owner of what no process does: the network, the director.
pub(crate) const WEATHER: Owner = usize::MAX;

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static SEQUENCE: Cell<u64> = const { Cell::new(0) };
    static TIMERS: RefCell<BTreeMap<(u64, u64), Waker>> = const { RefCell::new(BTreeMap::new()) };
    static ORDERS: RefCell<Vec<Order>> = const { RefCell::new(vec![]) };
}

enum Order {
    Spawn(Owner, Work),
    Kill(Owner),
    Freeze(Owner, u64),
}

/// Microseconds since the seed's beginning.
pub(crate) fn now_us() -> u64 {
    NOW.get()
}

/// Milliseconds since the seed's beginning.
pub(crate) fn now_ms() -> u64 {
    NOW.get() / 1_000
}

/// Starts a task of `owner`.
pub(crate) fn spawn(owner: Owner, work: impl Future<Output = ()> + 'static) {
    ORDERS.with_borrow_mut(|orders| orders.push(Order::Spawn(owner, Box::pin(work))));
}

/// Drops all tasks of `owner`.
pub(crate) fn kill(owner: Owner) {
    ORDERS.with_borrow_mut(|orders| orders.push(Order::Kill(owner)));
}

/// Lets no task of `owner` run for `how_long_ms`.
pub(crate) fn freeze(owner: Owner, how_long_ms: u64) {
    ORDERS.with_borrow_mut(|orders| orders.push(Order::Freeze(owner, now_us() + how_long_ms * 1_000)));
}

fn wake_at(until: u64, waker: Waker) {
    SEQUENCE.set(SEQUENCE.get() + 1);
    TIMERS.with_borrow_mut(|timers| timers.insert((until, SEQUENCE.get()), waker));
}

/// Waits for a moment of virtual time.
#[derive(Debug)]
pub(crate) struct Sleep {
    until: u64,
    armed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now_us() >= self.until {
            return Poll::Ready(());
        }
        if !self.armed {
            self.armed = true;
            wake_at(self.until, cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Waits for `duration` of virtual time.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    Sleep { until: now_us() + duration.as_micros() as u64, armed: false }
}

/// Waits for some milliseconds of virtual time.
pub(crate) fn sleep_ms(ms: u64) -> Sleep {
    sleep(Duration::from_millis(ms))
}

struct Ready {
    id: u64,
    queue: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        let mut queue = self.queue.lock().expect("no holder panics");
        if !queue.contains(&self.id) {
            queue.push(self.id);
        }
    }
}

struct Task {
    owner: Owner,
    work: Work,
    waker: Waker,
}

/// Runs `main` and all that it starts, until it is done.
pub(crate) fn run(mut rng: Rng, main: impl Future<Output = ()> + 'static) {
    NOW.set(0);
    SEQUENCE.set(0);
    TIMERS.take();
    ORDERS.take();
    let queue = Arc::new(Mutex::new(vec![]));
    let mut tasks: BTreeMap<u64, Task> = BTreeMap::new();
    let mut frozen: BTreeMap<Owner, u64> = BTreeMap::new();
    let mut next = 0;
    spawn(WEATHER, main);
    loop {
        for order in ORDERS.take() {
            match order {
                Order::Spawn(owner, work) => {
                    let waker = Waker::from(Arc::new(Ready { id: next, queue: Arc::clone(&queue) }));
                    waker.wake_by_ref();
                    tasks.insert(next, Task { owner, work, waker });
                    next += 1;
                }
                Order::Kill(owner) => tasks.retain(|_, task| task.owner != owner),
                Order::Freeze(owner, until) => drop(frozen.insert(owner, until)),
            }
        }
        let chosen = {
            let mut ready = queue.lock().expect("no holder panics");
            if ready.is_empty() { None } else { Some(rng.below(ready.len() as u64) as usize).map(|i| ready.remove(i)) }
        };
        let Some(id) = chosen else {
            let Some(((at, _), waker)) = TIMERS.with_borrow_mut(BTreeMap::pop_first) else {
                panic!("all tasks wait for nothing");
            };
            NOW.set(now_us().max(at));
            waker.wake();
            continue;
        };
        let Some(task) = tasks.get_mut(&id) else { continue };
        match frozen.get(&task.owner) {
            Some(until) if *until > now_us() => {
                wake_at(*until, task.waker.clone());
                continue;
            }
            _ => {}
        }
        let waker = task.waker.clone();
        if task.work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            tasks.remove(&id);
            if id == 0 {
                return;
            }
        }
    }
}
