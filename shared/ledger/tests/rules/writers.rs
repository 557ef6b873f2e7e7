//! Rules 1-6: ranges, origins, numbers, writers, replay.

use bifold_ledger::{Ledger, Nonce, Refusal};

use crate::dsl::{body, durable, entry, p, ranges, refused, run, show, trace};

#[test]
fn rule_01_a_range_is_positions_and_may_hold_fewer_rows() {
    let ledger = run("D v1; A p0[0,25); F p0[0,25)");
    assert_eq!(ranges("p0[0,25) p1[3,4)", |_| 0).positions(), 26);
    assert_eq!((ledger.archive[0].rows[0].rows, ledger.archived(&p(0))), (10, 25));
    refused(&[("D v1; A p0[0,25); A p0[10,26)", "archived w/0 from 10, but the frontier is 25")]);
}

#[test]
fn rule_02_a_partition_starts_at_its_origin_and_a_new_one_at_0() {
    let ledger = run("O(5); D v1; A p0[5,6) p1[0,1); F p1[0,1) p0[5,6)");
    assert_eq!((ledger.origin(&p(0)), ledger.origin(&p(1))), (5, 0));
    assert_eq!(show(&ledger.effective()), "(6,1)");
    refused(&[
        ("O(5); A p0[0,6)", "archived w/0 from 0, but the frontier is 5"),
        ("O(5); F p0[4,6)", "folded w/0 from 4, but the frontier is 5"),
        ("O(5); A p1[5,6)", "archived w/1 from 5, but the frontier is 0"),
        ("O(5); F p1[1,2)", "folded w/1 from 1, but the frontier is 0"),
    ]);
}

#[test]
fn rule_02_an_absent_partition_of_a_boundary_stands_at_its_origin() {
    let ledger = run("O(0,5); D v1; A p0→1; F p0→1; P(1)");
    assert_eq!(show(&ledger.effective()), "(1,5)");
    assert_eq!(durable(&ledger, "v1"), "(1,5) + [] = (1,5)");
}

#[test]
fn rule_03_a_number_is_never_reused_or_left_out() {
    let ledger = run("D v1; A p0→1");
    let fold = body("F p0→1", &ledger);
    for number in [0, 1, 2, 3, 5] {
        assert_eq!(ledger.check(number, &fold), Err(Refusal::Number { number, after: 3 }));
    }
    assert_eq!(ledger.check(4, &fold), Ok(()));
}

#[test]
fn rule_03_a_snapshot_and_the_entries_after_it_are_the_same_state() {
    let trace =
        trace("O(0,5); D v1; A p0→2; F p0→2; F p1→6; D v2; P{v1}(2,5); D u1@u; S v1; R v2; A p1→6; F p0→3; P(2,6)");
    for cut in 0..=trace.entries.len() {
        let early = Ledger::replay(&trace.entries[..cut]).expect("a valid prefix");
        let text = serde_json::to_string(&early).expect("a ledger is JSON");
        let mut ledger: Ledger = serde_json::from_str(&text).expect("its own JSON");
        assert_eq!(ledger, early, "cut after {cut}");
        trace.entries[cut..].iter().for_each(|entry| ledger.apply(entry).expect("valid"));
        assert_eq!(ledger, trace.ledger, "cut after {cut}");
    }
}

#[test]
fn rule_04_a_writer_decides_again_from_what_it_reads_then() {
    // Another folder committed first: the entry is refused under the next number, a new decision is not.
    let stale = run("D v1; F p0→2");
    let late = body("F p0→3", &stale);
    let now = run("D v1; F p0→2; F p0→4");
    assert!(matches!(now.check(4, &late), Err(Refusal::Number { number: 4, after: 4 })));
    assert!(matches!(now.check(5, &late), Err(Refusal::Start { start: 2, frontier: 4, .. })));
    assert_eq!(now.check(5, &body("F p0→5", &now)), Ok(()));
}

#[test]
fn rule_05_the_ledger_knows_the_commands_done_by_nonce() {
    let ledger = run("D v1; D v2; A p0→1; F p0→1; S v1; R v2; P(1,0)");
    let nonce = |number: u64| Nonce(format!("nonce-{number}"));
    let done: Vec<_> = (1..=8).filter(|number| ledger.commands.contains(&nonce(*number))).collect();
    assert_eq!(done, [2, 3, 6, 7]);
}

#[test]
fn rule_05_a_command_done_is_not_done_twice() {
    let mut ledger = run("D v1; D v2; S v1; S v2");
    let mut again = entry(6, body("S v1", &ledger));
    again.nonce = Nonce("nonce-4".into());
    assert_eq!(ledger.apply(&again), Ok(()));
    assert_eq!(ledger.number, 6);
    assert_eq!(ledger.served("v"), Some(&"v2".into()), "a repeated command changes nothing");
}

#[test]
fn rule_06_replay_stops_at_an_invalid_entry_and_names_it() {
    let mut entries = trace("D v1; A p0→2; F p0→2; P(2,0); F p0→3").entries;
    assert!(Ledger::replay(&entries).is_ok());
    entries[4] = entry(5, body("P(3,0)", &run("D v1")));
    let (number, refusal) = Ledger::replay(&entries).expect_err("3 is not archived");
    assert_eq!(
        (number, refusal.to_string().as_str()),
        (5, "the boundary w/0:3 is beyond the archive, which ends at 2")
    );
    entries.remove(2);
    assert_eq!(Ledger::replay(&entries), Err((4, Refusal::Number { number: 4, after: 2 })));
}

#[test]
fn rule_06_a_refused_entry_changes_nothing() {
    for step in ["D v1", "R v1", "S v2", "A p0[2,3)", "F p0[2,3)", "F{v2} p0→2", "P(2,0)", "M 9", "R v9"] {
        let mut trace = trace("D v1; D v2@u; F p0→1; R v2; D v2; A p0→1");
        let before = trace.ledger.clone();
        trace.put(step).expect_err(step);
        assert_eq!(trace.ledger, before, "{step}");
    }
}

#[test]
fn rule_06_created_is_number_1_and_nothing_else_is() {
    let create = trace("D v1").entries.remove(0).body;
    assert_eq!(Ledger::default().check(1, &create), Ok(()));
    assert!(!Ledger::default().exists() && run("D v1").exists());
    let refused = |ledger: &Ledger, number, body| ledger.check(number, body).expect_err("out of place").to_string();
    assert_eq!(refused(&run("D v1"), 3, &create), "an entry of kind created cannot stand at number 3");
    let declare = body("D v1", &Ledger::default());
    assert_eq!(refused(&Ledger::default(), 1, &declare), "an entry of kind declared cannot stand at number 1");
}
