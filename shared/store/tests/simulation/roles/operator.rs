//! A person who selects and retires versions, accepts losses, quarantines and lifts, and repeats a command when its outcome is not known.

use std::sync::Arc;

use bifold_ledger::{Body, Ledger, Nonce, Span, VersionId};

use super::speed::has;
use super::{Backoff, appended, nonce, refused, survey};
use crate::clock::sleep_ms;
use crate::error::{Error, Kind};
use crate::journal::{Appended, Journal};
use crate::world::{VIEWS, World};

/// Gives commands until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let who = World::name(process);
    while !world.stopping(process) {
        let longest = if world.scenario.lost { 600 } else { 2_500 };
        sleep_ms(world.between(100, longest)).await;
        if let Err(error) = command(&world, process).await {
            world.judge(&who, &error);
        }
    }
}

async fn command(world: &Arc<World>, process: usize) -> Result<(), Error> {
    let mut journal = Journal::open(world.files(process), "cli").await?;
    // At rest somebody still goes on without what is lost.
    let calm = world.is_calm();
    let chosen = match accept_loss(world, &journal.ledger()).await.filter(|_| calm || world.chance(700)) {
        None if calm => return Ok(()),
        None if world.scenario.lost && world.chance(700) => return Ok(()),
        None if world.chance(400) => leave_out(world, &journal.ledger()),
        None => choose(world, &journal.ledger()),
        loss => loss,
    };
    let Some(body) = chosen else { return Ok(()) };
    let nonce = nonce(world);
    say(&mut journal, world, process, &body, &nonce).await?;
    if world.chance(300) {
        // Once more, by somebody who has not seen the answer.
        let mut journal = Journal::open(world.files(process), "cli").await?;
        if journal.ledger().commands.contains(&nonce) {
            world.note("trace: a command is repeated");
            let before = world.ledger().number;
            let done = journal.append_as(body, nonce).await?;
            assert!(matches!(done, Appended::Won(number) if number <= before), "a command done is done again");
        }
    }
    Ok(())
}

async fn say(journal: &mut Journal, world: &World, process: usize, body: &Body, nonce: &Nonce) -> Result<(), Error> {
    let who = &World::name(process);
    let mut backoff = Backoff::default();
    loop {
        match journal.append_as(body.clone(), nonce.clone()).await {
            Ok(done) => {
                appended(world, process, done);
                if done != Appended::Lost {
                    return Ok(());
                }
            }
            Err(e) if refused(world, who, &e) => return Ok(()),
            Err(e) if e.kind() == Kind::Unavailable => {
                world.judge(who, &e);
                world.note("append: unknown");
                backoff.pause().await;
                if let Err(e) = journal.refresh().await {
                    world.judge(who, &e);
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// What neither the log nor the archive has: `accept-loss` of cli/src/commands/changes.rs.
async fn accept_loss(world: &World, ledger: &Ledger) -> Option<Body> {
    let ranges = ledger.standing_to_archive(&has(&survey(world).await)).gone();
    (ledger.exists() && !ranges.is_empty()).then(|| Body::Lost { ranges, reason: "gone".into() })
}

/// `quarantine` of the same.
fn leave_out(world: &World, ledger: &Ledger) -> Option<Body> {
    if !ledger.changes.is_empty() && world.chance(400) {
        let quarantine = world.pick(&ledger.changes).number;
        return Some(Body::Lifted { quarantine, reason: "right".into() });
    }
    let known = ledger.effective().max(&ledger.archived);
    let known: Vec<_> = known.iter().collect();
    if known.is_empty() {
        return None;
    }
    let (at, next) = world.pick(&known);
    // Often near the ends, where a plan or a boundary may cut it.
    let origin = ledger.origin(at);
    let lowest = if world.chance(500) { origin } else { (next - 12).max(origin) };
    let from = world.between(lowest as u64, next.max(lowest) as u64 + 4) as i64;
    let ranges = [(at.clone(), Span::new(from, from + world.between(1, 8) as i64))].into_iter().collect();
    Some(Body::Quarantined { ranges, reason: "wrong".into() })
}

fn choose(world: &World, ledger: &Ledger) -> Option<Body> {
    if !ledger.exists() {
        return None;
    }
    let view = world.pick(&VIEWS);
    let of_view = ledger.versions.iter().filter(|(_, v)| v.view == view).map(|(id, _)| id.clone());
    let of_view: Vec<VersionId> = of_view.collect();
    if of_view.is_empty() {
        return None;
    }
    let version = world.pick(&of_view);
    Some(match world.below(12) {
        0..6 => Body::Selected { version },
        6..11 => Body::Retired { versions: vec![version] },
        _ => {
            world.note("operator: a view is dropped");
            Body::Retired { versions: of_view.into_iter().filter(|id| ledger.versions[id].active).collect() }
        }
    })
}
