//! Rules 15-18: which units make an answer.

use bifold_ledger::{Body, LiveUnit, Toward, VersionId, chain};

use crate::dsl::{body, durable, p, ranges, run, show, vector};

/// Live units chained from a frontier: `places used → frontier`.
fn chained(frontier: &str, offered: &[&str]) -> String {
    let unit = |text: &&str| LiveUnit { ranges: ranges(text, |_| panic!("{text}: say the start")), folded_under: 1 };
    let offered: Vec<_> = offered.iter().map(unit).collect();
    let chain = chain(&vector(frontier), &offered);
    format!("{:?} → {}", chain.used, show(&chain.frontier))
}

#[test]
fn rule_15_deltas_are_chosen_by_offset() {
    for (text, answer) in [
        ("", "(0,0) + [4, 5, 6] = (3,1)"),
        ("P@3(0,0)", "(0,0) + [4, 5, 6] = (3,1)"),
        ("P@3(1,0)", "(1,0) + [5, 6] = (3,1)"), // planned before, published after
        ("P(2,1)", "(2,1) + [6] = (3,1)"),
        ("P(3,1)", "(3,1) + [] = (3,1)"),
        ("P(9,1)", "(9,1) + [] = (9,1)"),
        ("P(9,1); F p1→4", "(9,1) + [8] = (9,4)"),
    ] {
        let text = format!("D v1; A p0→9 p1→9; F p0→1; F p0→2 p1→1; F p0→3; {text}");
        assert_eq!(durable(&run(&text), "v1"), answer, "{text}");
    }
}

#[test]
fn rule_15_each_version_compares_with_its_own_boundary() {
    let ledger = run("D v1; D u1@u; A p0→3; F p0→1; F p0→2; P{v1}(2,0); D v2; F p0→3; P{u1}(1,0)");
    assert_eq!(durable(&ledger, "v1"), "(2,0) + [9] = (3,0)");
    assert_eq!(durable(&ledger, "u1"), "(1,0) + [6, 9] = (3,0)");
    assert_eq!(durable(&ledger, "v2"), "version v2 is being built");
    assert_eq!(durable(&ledger, "v9"), "version v9 is not active");
    assert_eq!(durable(&run("D v1; D u1@u; R u1"), "u1"), "version u1 is not active");
}

#[test]
fn rule_15_a_batch_view_stands_for_what_lies_below_its_boundary() {
    let mut ledger = run("D v1; A p0→2; F p0→1; F p0→2; P(1,0)");
    let cover = ledger.cover(&"v1".into()).expect("it joins");
    assert_eq!((cover.number, cover.runs[0].path.as_str(), cover.runs.len()), (6, "run", 1));
    // Units below the boundary that are still listed are not used again.
    ledger.units = run("D v1; A p0→2; F p0→1; F p0→2").units;
    assert_eq!(durable(&ledger, "v1"), "(1,0) + [5] = (2,0)");
}

#[test]
fn rule_17_durable_units_that_do_not_join_are_an_error() {
    // No valid ledger leads here: the state is changed by hand.
    let ledger = run("D v1; A p0→9; F p0→1; F p0→3; F p0→4 p1→1");
    let changed = |change: &dyn Fn(&mut bifold_ledger::Ledger)| {
        let mut ledger = ledger.clone();
        change(&mut ledger);
        durable(&ledger, "v1")
    };
    let gap = "the epoch of entry 6 starts at w/0:3, the coverage ends at 1";
    assert_eq!(changed(&|l| drop(l.units.remove(1))), gap);
    let overlap = "the epoch of entry 4 starts at w/0:0, the coverage ends at 1";
    assert_eq!(changed(&|l| l.units.insert(1, l.units[0].clone())), overlap);
    let torn = "the boundary cuts through the epoch of entry 5";
    assert_eq!(changed(&|l| set_boundary(l, "(2,0)")), torn);
    assert_eq!(changed(&|l| set_boundary(l, "(3,1)")), "the boundary cuts through the epoch of entry 6");
    let missing = "the epoch of entry 5 holds no states of version v1";
    assert_eq!(changed(&|l| l.units[1].versions.clear()), missing);
    assert_eq!(changed(&|_| ()), "(0,0) + [4, 5, 6] = (4,1)");
}

fn set_boundary(ledger: &mut bifold_ledger::Ledger, boundary: &str) {
    ledger.versions.get_mut(&"v1".into()).expect("declared").boundary = Some(vector(boundary));
}

#[test]
fn rule_17_live_units_are_chained_from_the_durable_frontier() {
    for (frontier, offered, answer) in [
        ("(0,0)", vec![], "[] → (0,0)"),
        ("(0,0)", vec!["p0[0,1)"], "[0] → (1,0)"),
        ("(0,0)", vec!["p0[0,1)", "p0[1,3)", "p0[3,4)"], "[0, 1, 2] → (4,0)"),
        ("(0,0)", vec!["p0[3,4)", "p0[1,3)", "p0[0,1)"], "[2, 1, 0] → (4,0)"), // in any order
        ("(1,0)", vec!["p0[0,1)", "p0[1,3)"], "[1] → (3,0)"),                  // already durable
        ("(1,0)", vec!["p0[0,3)"], "[] → (1,0)"),                              // overlaps it: left out whole
        ("(0,0)", vec!["p0[1,3)"], "[] → (0,0)"),                              // a gap
        ("(0,0)", vec!["p0[0,2)", "p1[0,5)"], "[0, 1] → (2,5)"),               // two instances
        ("(4)", vec!["p1[0,5)"], "[0] → (4,5)"),                               // a new partition
    ] {
        assert_eq!(chained(frontier, &offered), answer, "{offered:?}");
    }
}

#[test]
fn rule_17_a_live_unit_that_does_not_start_there_on_all_its_partitions_is_left_out_whole() {
    for (frontier, offered, answer) in [
        ("(0,1)", vec!["p0[0,1) p1[0,1)"], "[] → (0,1)"),
        ("(0,0)", vec!["p0[0,1) p1[1,2)"], "[] → (0,0)"),
        ("(0,0)", vec!["p0[0,1) p1[1,2)", "p1[0,1)"], "[1, 0] → (1,2)"),
        ("(0,0)", vec!["p0[0,1) p1[0,1)", "p0[1,2) p1[0,3)"], "[0] → (1,1)"),
        ("(0,0)", vec!["p0[0,2) p1[0,2)", "p0[2,3)", "p1[2,3)"], "[0, 1, 2] → (3,3)"),
    ] {
        assert_eq!(chained(frontier, &offered), answer, "{offered:?}");
    }
}

#[test]
fn rule_17_of_rival_live_units_one_is_used() {
    for (offered, answer) in [
        (vec!["p0[0,1)", "p0[0,1)"], "[0] → (1,0)"),
        (vec!["p0[0,1)", "p0[0,2)"], "[0] → (1,0)"),
        (vec!["p0[0,2)", "p0[0,1)", "p0[1,2)", "p0[2,3)"], "[0, 3] → (3,0)"),
        (vec!["p0[0,1)", "p0[0,1) p1[0,1)", "p1[0,2)"], "[0, 2] → (1,2)"),
    ] {
        assert_eq!(chained("(0,0)", &offered), answer, "{offered:?}");
    }
}

#[test]
fn rule_17_a_live_unit_without_positions_is_no_unit() {
    assert_eq!(chained("(1,0)", &["p0[1,1)", "p1[0,0)", ""]), "[] → (1,0)");
    assert_eq!(chained("(1,0)", &["p0[1,2) p1[0,0)"]), "[0] → (2,0)");
}

#[test]
fn rule_17_a_partition_without_positions_keeps_no_unit_out() {
    // Its owner of old has nothing of p1, its new one has gone on.
    assert_eq!(chained("(1,4)", &["p1[4,6)", "p0[1,2) p1[4,4)"]), "[0, 1] → (2,6)");
    assert_eq!(chained("(1,4)", &["p0[1,2) p1[9,9)"]), "[0] → (2,4)");
}

#[test]
fn rule_17_live_units_go_on_where_the_durable_ones_of_a_reader_end() {
    // A reader with an older ledger takes the committed unit from the instance, one with a newer from the store.
    for (text, answer) in [("F p0→1", "[0, 1] → (3,0)"), ("F p0→1; F p0→2", "[1] → (3,0)"), ("", "[] → (0,0)")]
    {
        let ledger = run(&format!("D v1; A p0→1; {text}"));
        let frontier = show(&ledger.cover(&"v1".into()).expect("it joins").frontier);
        assert_eq!(chained(&frontier, &["p0[1,2)", "p0[2,3)"]), answer, "{text}");
    }
}

#[test]
fn rule_18_the_durable_frontier_of_a_complete_version_never_shrinks() {
    let steps =
        "D v1; A p0→9 p1→9; F p0→1; D v2; F p1→2; P(1,0); S v1; F p0→2 p1→4; P{v1}(1,2); P(9,9); R v2; D v2; F p0→12";
    let mut before = vector("(0,0)");
    for cut in 1..=steps.split(';').count() {
        let ledger = run(&steps.split(';').take(cut).collect::<Vec<_>>().join(";"));
        let frontier = ledger.cover(&"v1".into()).expect("it joins").frontier;
        assert!(frontier.reaches(&before) && frontier == ledger.effective(), "after {cut} steps");
        before = frontier;
    }
    assert_eq!(show(&before), "(12,9)");
}

#[test]
fn rule_18_a_leap_lowers_what_live_units_reach_and_says_so() {
    // They were folded beyond it, but they do not start at the new frontier.
    let text = "D v1; A p0→5";
    let before = run(text).cover(&"v1".into()).expect("it joins").frontier;
    assert_eq!(chained(&show(&before), &["p0[0,7)"]), "[0] → (7,0)");
    let after = run(&format!("{text}; P(5,0)")).cover(&"v1".into()).expect("it joins").frontier;
    assert_eq!(chained(&show(&after), &["p0[0,7)"]), "[] → (5,0)");
}

#[test]
fn rule_25_topic_ids_and_leader_epochs_are_kept() {
    let mut ledger = run("D v1");
    assert_eq!(ledger.topics["w"], "id-of-w");
    for (step, leader_epoch) in [("A p0→1", Some(3)), ("A p0→2", None), ("F p0→1", Some(2)), ("F p0→2", Some(4))]
    {
        let mut body = body(step, &ledger);
        if let Body::Archived { ranges, .. } | Body::Folded { ranges, .. } = &mut body {
            ranges.0.values_mut().for_each(|span| span.leader_epoch = leader_epoch);
        }
        ledger.apply(&crate::dsl::entry(ledger.number + 1, body)).expect("valid");
    }
    // An epoch belongs to its position: where none is known, an older one must not be paired with a newer position.
    assert_eq!((ledger.archived_epochs.get(&p(0)), ledger.folded_epochs.get(&p(0))), (None, Some(&4)));
    assert_eq!([0, 1, 2, 3].map(|next| ledger.leader_epoch_at(&p(0), next)), [None, None, Some(4), None]);
    // Nor is the epoch of the last fold that of a boundary which has leapt over it: the log would look truncated for ever.
    for (step, leader_epoch) in [("A p0→9", 6), ("P(9,0)", 0)] {
        let mut body = body(step, &ledger);
        if let Body::Archived { ranges, .. } = &mut body {
            ranges.0.values_mut().for_each(|span| span.leader_epoch = Some(leader_epoch));
        }
        ledger.apply(&crate::dsl::entry(ledger.number + 1, body)).expect("valid");
    }
    assert_eq!(ledger.frontier(&p(0)), 9);
    assert_eq!([2, 8, 9].map(|next| ledger.leader_epoch_at(&p(0), next)), [Some(4), None, Some(6)]);
}

/// A version that a pipeline goes back to is chosen again, or, where it was never built, begins anew.
#[test]
fn rule_13_a_version_that_is_wished_for_is_declared_or_selected() {
    let of = |id: &str| VersionId(id.to_string());
    for (text, wished, toward) in [
        ("D v1", "v2", Some(Toward::Declare)),
        ("D v1", "v1", None),
        ("D v1; R v1", "v1", Some(Toward::Declare)),
        // Neither is built, for there are events before them: the older begins anew.
        ("D u1@u; A p0→1; F p0→1; D v1; D v2", "v1", Some(Toward::Retire)),
        ("D u1@u; A p0→1; F p0→1; D v1; D v2", "v2", None),
        // Both are.
        ("D v1; D v2; A p0→1; F p0→1; P(1,0)", "v1", Some(Toward::Select)),
        ("D v1; D v2; A p0→1; F p0→1; P(1,0); S v1", "v1", None),
        ("D v1; D v2; A p0→1; F p0→1; P(1,0); S v1", "v2", Some(Toward::Select)),
        // The one that answers stays; the wished one begins anew after it.
        ("D u1@u; A p0→1; F p0→1; D v1; D v2; P{v2}(1,0)", "v1", Some(Toward::Retire)),
        ("D u1@u; A p0→1; F p0→1; D v1; D v2; P{v1}(1,0)", "v1", Some(Toward::Select)),
        // Views do not meet.
        ("D v1; D u1@u", "v1", None),
    ] {
        assert_eq!(run(text).toward("v", &of(wished)), toward, "{text}: {wished}");
    }
}
