//! Rules 7-10: what may be archived and folded.

use crate::dsl::{body, p, refused, run, show};

#[test]
fn rule_07_archived_starts_at_the_archive_frontier() {
    let ledger = run("A p0→3; A p1→2; A p0→4 p1→3");
    assert_eq!(show(&ledger.archived), "(4,3)");
    refused(&[
        ("A p0→3; A p0[2,4)", "archived w/0 from 2, but the frontier is 3"),
        ("A p0→3; A p0[4,5)", "archived w/0 from 4, but the frontier is 3"),
        ("A p0→3; A p0[3,4) p1[1,2)", "archived w/1 from 1, but the frontier is 0"),
        ("A", "an entry of kind archived that holds nothing"),
        ("A p0[0,0)", "an entry of kind archived that holds nothing"),
        ("A p0[0,-1)", "an entry of kind archived that holds nothing"),
    ]);
}

#[test]
fn rule_07_the_archive_is_ahead_of_the_fold_or_behind_it() {
    assert_eq!(show(&run("D v1; F p0→9; A p0[0,1)").archived), "(1)");
    assert_eq!(show(&run("D v1; A p0→9; F p0[0,1)").effective()), "(1,0)");
}

#[test]
fn rule_08_folded_starts_at_the_effective_frontier() {
    let ledger = run("D v1; F p0→2; F p1→1; F p0→3 p1→5");
    assert_eq!(show(&ledger.effective()), "(3,5)");
    refused(&[
        ("D v1; F p0→2; F p0[1,3)", "folded w/0 from 1, but the frontier is 2"),
        ("D v1; F p0→2; F p0[3,4)", "folded w/0 from 3, but the frontier is 2"),
        ("D v1; F p0→2; F p0[2,3) p1[1,2)", "folded w/1 from 1, but the frontier is 0"),
        ("D v1; F", "an entry of kind folded that holds nothing"),
    ]);
}

#[test]
fn rule_08_a_boundary_moves_the_effective_frontier() {
    let leap = "D v1; F p0→1; A p0→5; P(5,0)";
    assert_eq!(show(&run(leap).effective()), "(5,0)");
    assert_eq!(show(&run(&format!("{leap}; F p0[5,6)")).effective()), "(6,0)");
    refused(&[(&format!("{leap}; F p0[1,2)"), "folded w/0 from 1, but the frontier is 5")]);
}

#[test]
fn rule_08_an_old_boundary_does_not_move_the_frontier_back() {
    let ledger = run("D v1; F p0→1; F p0→2; A p0→2; P(1,0)");
    assert_eq!((show(&ledger.effective()), ledger.frontier(&p(0))), ("(2,0)".into(), 2));
    // Nor does retiring the version whose boundary it is.
    let ledger = run("D v1; A p0→5; P(5,0); D v2; R v1,v2");
    assert_eq!(show(&ledger.effective()), "(5,0)");
}

#[test]
fn rule_08_only_ranges_that_hold_something_are_judged() {
    let ledger = run("D v1; F p0→1; F p0[1,2) p1[7,7)");
    assert_eq!(show(&ledger.effective()), "(2,0)");
}

#[test]
fn rule_09_a_delta_per_active_version() {
    run("D v1; F{v1} p0→1; D v2; F{v2,v1} p0→2; R v2; F{v1} p0→3; R v1; F{} p0→4");
    for step in ["{}", "{v1}", "{v2}", "{v1,v2,v3}", "{v1,v1}", "{v1,v2,v2}", "{v1,v3}"] {
        refused(&[(&format!("D v3; D v1; D v2; R v3; F{step} p0→1"), "the entry holds versions")]);
    }
}

#[test]
fn rule_09_each_delta_covers_all_ranges_of_its_entry() {
    let ledger = run("D v1; D u1@u; F p0→2 p1→1");
    for version in ["v1", "u1"] {
        let cover = ledger.cover(&version.into()).expect("it joins");
        assert_eq!((cover.units.len(), show(&cover.frontier)), (1, "(2,1)".into()));
        assert_eq!(cover.units[0].ranges, ledger.units[0].ranges);
    }
}

#[test]
fn rule_10_an_epoch_begun_before_the_versions_or_its_start_changed_is_refused() {
    // The fold's part, to discard and fold again, is its own; that it must is seen here.
    let begun = body("F p0→2", &run("D v1; F p0→1"));
    for (after, valid) in [("A p0→1", true), ("F p1→1", true), ("S v1", true), ("D v2", false), ("D v2; R v2", true)]
    {
        let ledger = run(&format!("D v1; F p0→1; {after}"));
        assert_eq!(ledger.check(ledger.number + 1, &begun).is_ok(), valid, "{after}");
        let again = body("F p0→2", &ledger);
        assert_eq!(ledger.check(ledger.number + 1, &again), Ok(()), "folded again after {after}");
    }
    let leapt = run("D v1; F p0→1; A p0→3; P(3,0)");
    assert!(leapt.check(leapt.number + 1, &begun).is_err());
}
