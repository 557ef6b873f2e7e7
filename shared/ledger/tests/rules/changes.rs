//! Lost, quarantined, lifted; compacted (rules 12, 21, 22, 26).

use bifold_ledger::Mode;

use crate::dsl::{durable, holes, p, refused, run, show, vector};

#[test]
fn rule_12_nothing_changed_below_the_boundary_since_the_plan() {
    // #5 is the plan.
    let text = "D v1; A p0→4 p1→4; F p0→4 p1→4";
    refused(&[
        (
            &format!("{text}; Q p0[1,2); P@4(4,4)"),
            "entry 5 changes what counts below the boundary, after the plan at 4",
        ),
        (&format!("{text}; Q p0[1,2); P(4,4); L 5; P@6(4,4)"), "entry 7 changes what counts"),
        (&format!("{text}; X p0[4,6); P@4{{v1}}(5,4)"), "the boundary w/0:5 is beyond the archive"),
    ]);
    // What changes above it is no obstacle.
    run(&format!("{text}; Q p0[4,9); P@4(4,4)"));
    run(&format!("{text}; Q p0[1,2); P@5(4,4)"));
}

#[test]
fn rule_23_with_dedup_a_boundary_passes_what_was_judged_with_lost_rows() {
    // p0 is folded up to 6 when [2,3) is lost: it was there when [3,6) was judged.
    let text = "A p0→2; F p0→2; F p0→4; F p0→6; X p0[2,3)";
    let next =
        |declared: &str, archived: &str| show(&run(&format!("{declared}; {text}; {archived}")).next_boundary(1000));
    assert_eq!(next("DD v1", "A p0[2,4)"), "(2,0)");
    assert_eq!(next("DD v1", "A p0[2,6)"), "(6,0)");
    assert_eq!(next("DD v1", "A p0[2,6); A p0→8; F p0→8"), "(8,0)");
    assert_eq!(next("D v1", "A p0[2,4)"), "(4,0)", "without dedup nothing but the rows themselves is lost");
    refused(&[(
        &format!("DD v1; {text}; A p0[2,4); P(4,0)"),
        "what entry 7 says is lost was there when events above the boundary were judged duplicates",
    )]);
    run(&format!("D v1; {text}; A p0[2,4); P(4,0)"));
}

#[test]
fn rule_21_lost_is_what_is_not_archived() {
    refused(&[
        ("D v1; A p0→3; X p0[2,5)", "w/0 [2, …) cannot be lost: it is archived up to 3"),
        ("D v1; X p0[0,3); X p0[2,5)", "w/0 [2, 5) overlaps what entry 3 says of it"),
        ("D v1; Q p0[0,3); Q p0[2,5)", "w/0 [2, 5) overlaps what entry 3 says of it"),
        ("D v1; L 2", "entry 2 is no quarantine in force"),
        ("D v1; X p0[0,2); L 3", "entry 3 is no quarantine in force"),
        ("D v1; Q p0[0,2); L 3; L 3", "entry 3 is no quarantine in force"),
    ]);
    // A quarantine that was lifted may come again, and what is quarantined may get lost.
    run("D v1; Q p0[0,3); L 3; Q p0[2,5); X p0[0,5)");
}

#[test]
fn rule_21_a_full_run_leaves_out_quarantines_below_its_boundary_and_an_incremental_one_what_lies_above_its_start() {
    let text = "D v1; A p0→6; F p0→4; P(4,0); F p0→6; Q p0[1,2); Q p0[4,5); Q p0[5,9)";
    assert_eq!(holes(&run(text), "v1"), " | p0[1,2)#7 p0[4,5)#8 p0[5,6)#9");
    assert_eq!(holes(&run(&format!("{text}; I(6,0)")), "v1"), "p0[4,5)#8 | p0[1,2)#7 p0[5,6)#9");
    let full = format!("{text}; P(6,0)");
    assert_eq!(holes(&run(&full), "v1"), "p0[1,2)#7 p0[4,5)#8 | p0[5,6)#9");
    // A lift: the base goes on leaving it out until a full run counts it again.
    let lifted = format!("{full}; L 7; A p0→8; F p0→8; I(8,0)");
    assert_eq!(holes(&run(&lifted), "v1"), "p0[1,2)#7 p0[4,5)#8 | p0[5,8)#9");
    assert_eq!(holes(&run(&format!("{lifted}; P(8,0)")), "v1"), "p0[4,5)#8 | p0[5,8)#9");
}

#[test]
fn rule_21_a_batch_view_leaves_out_all_that_is_lost() {
    let ledger = run("D v1; X p0[0,3); A p0→5; F p0→5");
    let plan = ledger.plan_batch(&ledger.active(), vector("(5,0)"), false);
    assert_eq!((plan.versions[0].mode, plan.versions[0].holes.as_slice()), (Mode::Full, &[3][..]));
    let mut trace = crate::dsl::trace("D v1; X p0[0,3); A p0→5; F p0→5");
    let body = crate::dsl::body("P(5,0)", &trace.ledger);
    let bifold_ledger::Body::Published { plan, boundary, mut versions } = body else { panic!("published") };
    versions[0].holes.clear();
    let body = bifold_ledger::Body::Published { plan, boundary, versions };
    let refusal = trace.ledger.check(trace.ledger.number + 1, &body).expect_err("it counts what is lost");
    assert_eq!(refusal.to_string(), "what entry 3 leaves out has to be left out of published");
    trace.put("P(5,0)").expect("it leaves it out");
    assert_eq!(holes(&trace.ledger, "v1"), "p0[0,3)#3 | ");
}

#[test]
fn rule_22_reading_goes_on_behind_what_is_lost() {
    let ledger = run("D v1; X p0[2,5); X p0[5,6); X p1[0,1)");
    assert_eq!([0, 1, 2, 4, 5, 6].map(|next| ledger.past_lost(&p(0), next)), [0, 1, 6, 6, 6, 6]);
    assert_eq!(ledger.lost_between(&p(0), 0, 2).count(), 0);
    assert_eq!(ledger.lost_between(&p(0), 0, 6).collect::<Vec<_>>(), [3, 4]);
    // The delta that passes over it says so.
    assert_eq!(holes(&run("D v1; X p0[0,3); F p0→5"), "v1"), "p0[0,3)#3 | ");
}

#[test]
fn trace_run_1_plans_q_run_2_publishes_naming_q_run_1_publishes_at_the_same_boundary() {
    // #5 is run 1's plan.
    let text = "D v1; A p0→2; F p0→2; Q p0[0,1); P@5(2,0)";
    refused(&[(&format!("{text}; P@4(2,0)"), "entry 5 changes what counts below the boundary")]);
}

#[test]
fn trace_an_incremental_run_over_a_quarantine_that_began_below_its_start_leaves_it_pending() {
    let text = "D v1; A p0→2; Q p0[0,2); F p0[0,1); P(1,0); F p0→2; I(2,0)";
    assert_eq!(holes(&run(text), "v1"), " | p0[0,2)#4");
    assert_eq!(holes(&run(&format!("{text}; P(2,0)")), "v1"), "p0[0,2)#4 | ");
}

#[test]
fn trace_a_delta_counts_what_was_lost_after_it() {
    let text = "D v1; F p0[0,1); X p0[0,1)";
    assert_eq!(holes(&run(text), "v1"), " | p0[0,1)#4");
    let archived = format!("{text}; A p0[0,3); F p0→3; P(3,0)");
    assert_eq!(holes(&run(&archived), "v1"), "p0[0,1)#4 | ");
}

#[test]
fn rule_26_compacted_replaces_units_that_follow_each_other() {
    let text = "D v1; F p0→1; F p0→2 p1→1; F p0→4";
    let ledger = run(&format!("{text}; C 3,4,5"));
    assert_eq!(durable(&ledger, "v1"), "(0,0) + [6] = (4,1)");
    assert_eq!(durable(&run(&format!("{text}; C 3,4; F p0→6; C 6,5")), "v1"), "(0,0) + [8, 7] = (6,1)");
    refused(&[
        (&format!("{text}; C 3,5"), "the units do not make up what is to replace them: they do not follow each other"),
        (&format!("{text}; C 3,4; C 3,4"), "entry 3 is no current unit"),
        (&format!("{text}; C 4,3"), "the units do not make up what is to replace them: they do not follow each other"),
        (&format!("{text}; A p0→1; P(1,0); C 3,4"), "entry 3 is no current unit"),
        ("D v1; F p0→1; D v2; F p0→2; C 3,5", "the units do not make up what is to replace them: the versions differ"),
    ]);
}

#[test]
fn rule_26_no_boundary_lies_inside() {
    // v1 stands at 1, u1 at 0: its units are kept, and may not be joined over v1's boundary.
    let text = "D v1; D u1@u; F p0→1; F p0→2; A p0→2; P{v1}(1,0)";
    refused(&[(&format!("{text}; C 4,5"), "the boundary of version v1 lies inside the compacted epochs")]);
    assert_eq!(run(text).compactable(2, u64::MAX, &[]), None);
    let alike = run("D v1; F p0→1; F p0→2; F p0→3; A p0→3; P(1,0)");
    let units: Vec<_> = alike.compactable(2, u64::MAX, &[]).expect("two").iter().map(|unit| unit.number).collect();
    assert_eq!(units, [4, 5]);
    assert_eq!(alike.compactable(3, u64::MAX, &[]), None);
}

#[test]
fn rule_26_nor_does_the_boundary_of_a_version_that_is_retired() {
    // Found by the simulation: v1 still needs the epochs below what v2 had published, and the next run starts from there.
    let text = "D v1; D u1@u; F p0→1; F p0→2; A p0→1; P{u1}(1,0); R u1";
    refused(&[(
        &format!("{text}; C 4,5"),
        "the units do not make up what is to replace them: the newest boundary lies inside",
    )]);
    assert_eq!(run(text).compactable(2, u64::MAX, &[]), None);
}

#[test]
fn rule_26_what_leaves_a_loss_out_is_not_joined_with_what_counts_it() {
    // 1 was folded before it was lost, 2 was passed over.
    let text = "D v1; A p0→1; F p0→2; X p0[1,3); F p0→4";
    assert_eq!(holes(&run(text), "v1"), "p0[2,3)#5 | p0[1,2)#5");
    refused(&[(
        &format!("{text}; C 4,6"),
        "the units do not make up what is to replace them: one leaves out what another counts",
    )]);
    assert_eq!(run(text).compactable(2, u64::MAX, &[]), None);
}

#[test]
fn rule_26_plans_of_batch_runs_under_way_are_not_compacted_over() {
    let ledger = run("D v1; F p0→1; F p0→2; F p0→3; F p0→4; A p0→2");
    let plan = ledger.next_boundary(10);
    let lengths = |plans: &[bifold_ledger::Offsets]| ledger.compactable(2, u64::MAX, plans).map(<[_]>::len);
    assert_eq!((lengths(&[]), lengths(&[plan])), (Some(4), Some(2)));
}

#[test]
fn rule_26_epochs_that_are_large_already_are_joined_only_where_no_others_can_be() {
    let count = |ledger: &bifold_ledger::Ledger, most| ledger.compactable(2, most, &[]).map(<[_]>::len);
    let mut ledger = run("D v1; F p0→1; F p0→2; F p0→3; F p0→4; F p0→5");
    let bytes = ledger.units[0].delta.bytes;
    assert_eq!((count(&ledger, 3 * bytes), count(&ledger, 2 * bytes), count(&ledger, bytes)), (Some(3), Some(2), None));
    // One in the middle keeps none of the others from it.
    ledger.units[1].delta.bytes = 2 * bytes;
    let units = ledger.compactable(2, 3 * bytes, &[]).expect("those after it");
    assert_eq!(units.iter().map(|unit| unit.number).collect::<Vec<_>>(), [5, 6, 7]);
    // Every other one: else they would never become fewer.
    ledger.units[3].delta.bytes = 2 * bytes;
    assert_eq!(count(&ledger, 3 * bytes), Some(2));
    // The longest run cannot be joined, another one can.
    let mut ledger = run("D v1; F p0→1; F p0→2; F p0→3; D v2; F p0→4; F p0→5");
    ledger.units[..3].iter_mut().for_each(|unit| unit.delta.bytes = 3 * bytes);
    let units = ledger.compactable(2, 3 * bytes, &[]).expect("the shorter run");
    assert_eq!(units.iter().map(|unit| unit.number).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn trace_epochs_compacted_over_a_boundary_are_torn() {
    refused(&[("D v1; F p0→1; F p0→2; A p0→2; P(1,0); C 3,4", "entry 3 is no current unit")]);
    let straddled = run("D v1; F p0→1; F p0→2; C 3,4; A p0→1");
    assert_eq!(show(&straddled.next_boundary(10)), "(0,0)", "a run takes the newest prefix that no unit straddles");
    refused(&[("D v1; F p0→1; F p0→2; C 3,4; A p0→2; P(1,0)", "the boundary cuts through the epoch of entry 5")]);
}

#[test]
fn rule_26_archive_files_are_replaced_by_files_of_the_same_rows() {
    let text = "D v1; A p0→1; A p0→2 p1→1; A p0→3";
    let ledger = run(&format!("{text}; CA 3,4"));
    let numbers: Vec<_> = ledger.archive.iter().map(|unit| unit.number).collect();
    assert_eq!(numbers, [6, 5]);
    assert_eq!(show(&ledger.archived), "(3,1)");
    refused(&[
        (&format!("{text}; CA 3,5"), "the units do not make up what is to replace them: they do not follow each other"),
        (&format!("{text}; CA 3,4; CA 3,4"), "entry 3 is no current unit"),
    ]);
    let small = run(text);
    let sizes = |small| bifold_ledger::ArchiveSizes { small, rows: 25, bytes: u64::MAX };
    assert_eq!(small.compactable_archive(2, sizes(10)).map(<[_]>::len), Some(2), "of 10 rows each, 25 at most");
    assert_eq!(small.compactable_archive(2, sizes(9)), None);
    let mut small = run("D v1; A p0→1; A p0→2; A p0→3; A p0→4; A p0→5; A p0→6");
    small.archive.iter_mut().for_each(|unit| unit.rows = vec![crate::dsl::file("rows")]);
    let bytes = |bytes| bifold_ledger::ArchiveSizes { small: 10, rows: 1000, bytes };
    let numbers = |ledger: &bifold_ledger::Ledger, least, most| {
        let units = ledger.compactable_archive(least, bytes(most));
        units.map(|units| units.iter().map(|unit| unit.number).collect::<Vec<_>>())
    };
    assert_eq!(numbers(&small, 2, 250), Some(vec![3, 4]), "of 100 bytes each, 250 at most");
    assert_eq!(numbers(&small, 4, 250), Some(vec![3, 4]), "fewer than least, but as large as one file is to be");
    small.archive[0].rows[0].bytes = 300;
    assert_eq!(numbers(&small, 2, 250), Some(vec![4, 5]), "what is larger keeps none of the others from it");
}

#[test]
fn rule_28_new_kinds_need_the_format_raised_first() {
    let first = "M 1; D v1";
    let ledger = run(first);
    let mut lower = ledger.clone();
    lower.format = 1;
    let body = crate::dsl::body("Q p0[0,1)", &ledger);
    let refusal = lower.check(lower.number + 1, &body).expect_err("format 1 does not know it");
    assert_eq!(refusal.to_string(), "an entry of kind quarantined needs ledger format 2, in force is 1");
    lower.format = 2;
    assert_eq!(lower.check(lower.number + 1, &body), Ok(()));
}

#[test]
fn rule_20_what_nothing_names_and_nothing_may_name_is_an_orphan() {
    let ledger = run("D v1; A p0→4; F p0→2; F p0→4; P(2,0)");
    // Files of these names are in force nowhere here: the traces' files are called "delta", "rows" and "run".
    for (path, orphan) in [
        ("deltas/00000000000000000004-n@w.0.2.delta", true),
        ("deltas/00000000000000000004-n@w.0.4.delta", false), // may still be committed
        ("deltas/00000000000000000004-n@w.0.4+w.1.0.delta", false),
        ("deltas/00000000000000000004-n@w.0.2+w.1.0.delta", true),
        ("deltas/00000000000000000004-n@w.1.0.delta", false),
        ("archive/00000000000000000003-n@w.0.3.parquet", true),
        ("archive/00000000000000000003-n@w.0.4.parquet", false),
        ("dead-letters/00000000000000000003-n@w.0.0/w.1.0.parquet", true),
        ("batch/v1/00000000000000000006-n-0.parquet", true), // published by entry 6
        ("batch/v1/00000000000000000007-n-0.parquet", false), // planned since
        ("batch/v9/00000000000000000007-n-0.parquet", true), // of no version that is active
        ("ledger/00000000000000000003.json", false),
        ("deltas/something else", false),
        ("probe/x", false),
    ] {
        assert_eq!(ledger.is_orphan(path), orphan, "{path}");
    }
    assert!(!ledger.is_orphan("batch/v1"), "no file");
}

#[test]
fn trace_orphan_collection_before_a_slow_put() {
    // A delta of [2,4) is uploaded, its put is slow: while it may be valid, the file stays.
    let before = run("D v1; F p0→2");
    assert!(!before.is_orphan("deltas/00000000000000000004-slow@w.0.2.delta"));
    // Somebody else commits from there: now it can never be named.
    assert!(run("D v1; F p0→2; F p0→3").is_orphan("deltas/00000000000000000004-slow@w.0.2.delta"));
}
