//! What an open epoch covers and names (rule 21), and how partitions stand to the log (rule 22).

use bifold_ledger::{Extent, Ledger, Offsets, Ranges, Span, Stopped};

use crate::dsl::{p, run, show};

fn extent(ledger: &Ledger) -> Extent {
    Extent::open(ledger, &[p(0), p(1)])
}

/// What the log has: of p0, and of p1.
fn log(p0: (i64, i64), p1: (i64, i64)) -> Ranges {
    [(p(0), Span::new(p0.0, p0.1)), (p(1), Span::new(p1.0, p1.1))].into_iter().collect()
}

fn at(offsets: &Offsets, partition: i32) -> Option<i64> {
    offsets.get(&p(partition))
}

#[test]
fn rule_08_what_is_only_looked_back_at_takes_nothing_away() {
    let ledger = run("D v1; F p0→20");
    let mut extent = extent(&ledger);
    extent.advance(&p(0), 12, Some(1));
    assert!(extent.ranges.is_empty());
    // Passed over a loss, then shown what lies before it.
    extent.advance(&p(0), 35, None);
    extent.advance(&p(0), 18, Some(1));
    extent.advance(&p(0), 35, Some(1));
    assert_eq!(extent.ranges.get(&p(0)), Some(&Span::new(20, 35)));
    extent.advance(&p(0), 36, Some(2));
    assert_eq!(extent.ranges.get(&p(0)), Some(&Span { start: 20, end: 36, leader_epoch: Some(2) }));
}

#[test]
fn rule_10_an_epoch_whose_start_another_has_passed_is_discarded() {
    let extent = extent(&run("D v1; F p0→20"));
    assert!(extent.is_at_frontier(&run("D v1; F p0→20")));
    assert!(!extent.is_at_frontier(&run("D v1; F p0→20; F p1→1")));
    assert!(!extent.is_at_frontier(&run("D v1; F p0→20; A p0→21; P(21,0)")));
}

#[test]
fn rule_21_an_epoch_names_what_it_passes_over() {
    let ledger = run("D v1; X p0[0,3) p1[4,6)");
    let mut extent = extent(&ledger);
    assert_eq!((show(&extent.end()), extent.holes.len()), ("(3,0)".into(), 1));
    let before = extent.end();
    extent.advance(&p(1), 6, None);
    assert!(!extent.names_what_it_counts(&ledger, &before), "nothing of it was folded");
    assert!(!extent.counts_lost(&ledger));
}

#[test]
fn rule_21_an_epoch_that_counts_some_of_a_loss_does_not_name_it() {
    // Folded in one partition when it is lost in both: found by the simulation.
    let lost = run("D v1; X p0[1,3) p1[1,3)");
    let mut in_both = extent(&run("D v1"));
    in_both.advance(&p(1), 2, None);
    let before = in_both.end();
    in_both.advance(&p(0), 1, None);
    assert!(!in_both.names_what_it_counts(&lost, &before), "it is not passed over yet");
    assert!(in_both.counts_lost(&lost), "but counted in p1");
    let before = in_both.end();
    in_both.pass_lost(&lost);
    assert_eq!(show(&in_both.end()), "(3,3)");
    in_both.holes.clear();
    assert!(in_both.names_what_it_counts(&lost, &before));
    // What lies behind another loss of the same partition was not folded.
    let ledger = run("D v1; X p0[0,2); X p0[4,5)");
    let mut behind = extent(&ledger);
    let before = behind.end();
    behind.advance(&p(0), 6, None);
    assert!(!behind.names_what_it_counts(&ledger, &before));
    assert_eq!(behind.holes.len(), 2);
}

#[test]
fn rule_22_what_the_log_dropped_is_folded_from_the_archive_or_stops_its_partition() {
    let ledger = run("D v1; F p0→2 p1→2; A p0→5");
    let whole = ledger.standing_to_fold(&log((0, 9), (2, 2)), 0);
    assert_eq!((show(&whole.next), whole.bridge.to.is_empty(), whole.stopped.len()), ("(2,2)".into(), true, 0));
    // p0 has it in the archive up to 5, p1 nowhere.
    let dropped = ledger.standing_to_fold(&log((5, 9), (3, 9)), 0);
    assert_eq!(
        (at(&dropped.bridge.from, 0), at(&dropped.bridge.to, 0), at(&dropped.next, 0)),
        (Some(2), Some(5), Some(5))
    );
    assert_eq!(dropped.stopped.get(&p(1)), Some(&Stopped::Gone { next: 2, earliest: 3 }));
    assert!(dropped.why().starts_with("w/1 has lost the offsets [2, 3)"), "{}", dropped.why());
    let gone = ledger.standing_to_fold(&log((6, 9), (2, 9)), 0);
    assert_eq!(gone.stopped.get(&p(0)), Some(&Stopped::Gone { next: 5, earliest: 6 }));
    assert!(gone.is_mended_in(&dropped) && !gone.is_mended_in(&gone));
    let accepted = run("D v1; F p0→2 p1→2; A p0→5; X p0[5,6) p1[2,3)");
    let passed = accepted.standing_to_fold(&log((6, 9), (3, 9)), 0);
    assert_eq!((show(&passed.next), at(&passed.bridge.to, 0)), ("(6,3)".into(), Some(5)));
    // Dedup is shown what lies before.
    let back = ledger.standing_to_fold(&log((2, 9), (2, 9)), 1);
    assert_eq!((at(&back.bridge.from, 0), at(&back.bridge.to, 0)), (Some(1), Some(5)));
    assert_eq!(back.stopped.get(&p(1)), Some(&Stopped::Gone { next: 1, earliest: 2 }));
}

#[test]
fn rule_25_a_log_that_ends_before_what_was_made_of_it_stops_its_partition() {
    let ledger = run("D v1; F p0→4; A p0→6");
    let short = |found: &Ranges| {
        let of = |standing: bifold_ledger::Standing| standing.stopped.get(&p(0)).copied();
        (of(ledger.standing_to_fold(found, 0)), of(ledger.standing_to_archive(found)))
    };
    assert_eq!(short(&log((0, 6), (0, 0))), (None, None));
    assert_eq!(short(&log((0, 5), (0, 0))), (None, Some(Stopped::Short { end: 5, known: 6 })));
    let (fold, archive) = short(&log((0, 3), (0, 0)));
    assert_eq!(fold, Some(Stopped::Short { end: 3, known: 4 }));
    assert_eq!(archive, Some(Stopped::Short { end: 3, known: 6 }));
    // What is archived is folded from there, though the log that it came from was longer.
    let (fold, _) = short(&log((5, 5), (0, 0)));
    assert_eq!(fold, Some(Stopped::Short { end: 5, known: 6 }));
    // What is archived alone has to be in the log from the archive's end on.
    assert_eq!(at(&ledger.standing_to_archive(&log((6, 9), (0, 0))).next, 0), Some(6));
    let gone = ledger.standing_to_archive(&log((7, 9), (0, 0)));
    assert_eq!(gone.stopped.get(&p(0)), Some(&Stopped::Gone { next: 6, earliest: 7 }));
    assert_eq!(gone.gone(), [(p(0), Span::new(6, 7))].into_iter().collect(), "what can be accepted as lost");
    assert!(ledger.standing_to_archive(&log((0, 3), (0, 0))).gone().is_empty());
}
