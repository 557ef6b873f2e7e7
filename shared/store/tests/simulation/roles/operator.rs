//! A person who selects and retires versions, and repeats a command when its outcome is not known.

use std::sync::Arc;

use bifold_ledger::{Body, Ledger, Nonce, VersionId};

use super::{Backoff, appended, nonce, refused};
use crate::clock::sleep_ms;
use crate::error::{Error, Kind};
use crate::journal::{Appended, Journal};
use crate::world::{VIEWS, World};

/// Gives commands until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let who = World::name(process);
    while !world.stopping(process) {
        sleep_ms(world.between(300, 2_500)).await;
        if let Err(error) = command(&world, process).await {
            world.judge(&who, &error);
        }
    }
}

async fn command(world: &Arc<World>, process: usize) -> Result<(), Error> {
    let mut journal = Journal::open(world.files(process), "cli").await?;
    let Some(body) = choose(world, &journal.ledger()) else { return Ok(()) };
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
