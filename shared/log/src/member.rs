//! Sharing partitions among the instances of a role.
//!
//! A member owns partitions; its instance reads those and no others. Who owns what is a matter of load alone: what is
//! counted is decided by the ledger, which lets one commit win.

use std::collections::BTreeSet;

use bifold_ledger::{Offsets, TopicPartition};

use crate::{Error, Log};

/// Which partitions are an instance's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    /// Not known yet: the group is being formed.
    Unknown,
    /// All there are.
    All,
    /// These.
    These(BTreeSet<TopicPartition>),
}

impl Owned {
    /// Whether `at` is among them.
    pub fn holds(&self, at: &TopicPartition) -> bool {
        match self {
            Owned::Unknown => false,
            Owned::All => true,
            Owned::These(partitions) => partitions.contains(at),
        }
    }
}

/// What a group wants of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: go on.
    Stay,
    /// The member owns other partitions now.
    Changed,
    /// Some of its partitions go to another member, which waits for them: commit, then [`Member::release`] them.
    Release,
}

/// A member of a group. Its calls block for moments only; it lives on its instance's thread.
pub trait Member: Send {
    /// Keeps the membership alive and says what has become of it. Has to be called every few seconds.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn poll(&mut self) -> Result<Turn, Error>;

    /// What it owns, as of the last poll.
    fn owned(&self) -> Owned;

    /// Gives back what [`Turn::Release`] asked for.
    fn release(&mut self);

    /// Tells monitoring tools how far the group is. Best effort; nothing is ever read from there.
    fn commit(&mut self, positions: &Offsets);

    /// What the log said last that keeps the group from being formed.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// The only member there is: it owns everything.
#[derive(Debug)]
pub struct Alone;

impl Member for Alone {
    fn poll(&mut self) -> Result<Turn, Error> {
        Ok(Turn::Stay)
    }

    fn owned(&self) -> Owned {
        Owned::All
    }

    fn release(&mut self) {}

    fn commit(&mut self, _positions: &Offsets) {}
}

/// An instance's place in its role's group, taken when it is first needed.
#[derive(Default)]
pub struct Seat {
    member: Option<Box<dyn Member>>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("owned", &self.member.as_ref().map(|member| member.owned())).finish()
    }
}

impl Seat {
    /// What the instance owns now, which may be [`Owned::Unknown`]. It must have read nothing of it yet.
    ///
    /// # Errors
    /// The log cannot be asked.
    pub fn take(&mut self, log: &dyn Log, group: &str, topics: &[String]) -> Result<Owned, Error> {
        let member = match &mut self.member {
            Some(member) => member,
            none => none.insert(log.join(group, topics)?),
        };
        if member.poll()? == Turn::Release {
            member.release();
        }
        Ok(member.owned())
    }

    /// Why nothing is owned yet.
    pub fn why_not(&self, group: &str) -> String {
        let forming = format!("the consumer group {group} is being formed");
        match self.member.as_ref().and_then(|member| member.trouble()) {
            Some(trouble) => format!("{forming}: {trouble}"),
            None => forming,
        }
    }

    /// What the group wants, after [`take`](Self::take).
    ///
    /// # Errors
    /// The log cannot be asked.
    pub fn poll(&mut self) -> Result<Turn, Error> {
        self.member.as_mut().map_or(Ok(Turn::Stay), |member| member.poll())
    }

    /// What it owns, as of the last poll.
    pub fn owned(&self) -> Owned {
        self.member.as_ref().map_or(Owned::Unknown, |member| member.owned())
    }

    /// Gives back what [`Turn::Release`] asked for.
    pub fn release(&mut self) {
        if let Some(member) = &mut self.member {
            member.release();
        }
    }

    /// Tells monitoring tools how far the group is.
    pub fn commit(&mut self, positions: &Offsets) {
        if let Some(member) = &mut self.member {
            member.commit(positions);
        }
    }

    /// Leaves the group: others may be able to do what this instance is not.
    pub fn leave(&mut self) {
        self.member = None;
    }
}
