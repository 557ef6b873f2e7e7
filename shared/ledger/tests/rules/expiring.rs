//! What leaves the archive (rule 27).

use bifold_ledger::{Body, Mode};

use crate::dsl::{body, holes, p, refused, run, show, vector};

/// Archived, folded and published up to 6.
const BUILT: &str = "D v1; A p0→4; A p0→6; F p0→6; P(6,0)";

#[test]
fn rule_27_what_expires_lies_below_every_boundary() {
    refused(&[
        (
            &format!("{BUILT}; A p0→8; F p0→8; Z(7,0)"),
            "the base view of version v1 reaches to w/0:7; it has to reach from 7 to 6",
        ),
        (&format!("{BUILT}; Z(0,0)"), "an entry of kind expired that holds nothing"),
        (&format!("{BUILT}; Z(4,0); Z(4,0)"), "an entry of kind expired that holds nothing"),
        ("D v1; A p0→4; F p0→4; Z(2,0)", "the base view of version v1 reaches to w/0:2; it has to reach from 2 to 0"),
        (&format!("{BUILT}; R v1; Z(2,0)"), "an entry of kind expired that holds nothing"),
        // One version stands lower than the other.
        (
            &format!("D u1@u; {BUILT}; A p0→8; F p0→8; P{{v1}}(8,0); Z(8,0)"),
            "the base view of version u1 reaches to w/0:8; it has to reach from 8 to 6",
        ),
    ]);
    let ledger = run(&format!("{BUILT}; M 3"));
    let Body::Expired { plan, below, mut bases } = body("Z(4,0)", &ledger) else { panic!("it is expired") };
    bases[0].boundary = vector("(3,0)");
    let refusal =
        ledger.check(ledger.number + 1, &Body::Expired { plan, below, bases }).expect_err("nothing holds p0@3");
    assert_eq!(refusal.to_string(), "the base view of version v1 reaches to w/0:3; it has to reach from 4 to 6");
    let ledger = run(&format!("{BUILT}; Z(4,0)"));
    assert_eq!(ledger.archive.iter().map(|unit| unit.number).collect::<Vec<_>>(), [4]);
    assert_eq!((ledger.kept_from(&p(0)), ledger.archived(&p(0))), (4, 6));
    // What is cut through stays, and is read from there on.
    assert_eq!(run(&format!("{BUILT}; Z(5,0)")).archive.len(), 1);
    assert_eq!(run(&format!("{BUILT}; Z(3,0)")).archive.len(), 2);
}

#[test]
fn rule_27_with_dedup_base_views_reach_further_by_what_it_looks_back() {
    run(&format!("{BUILT}; Z(4,0)+2"));
    refused(&[(
        &format!("{BUILT}; Z(5,0)+2"),
        "the base view of version v1 reaches to w/0:7; it has to reach from 7 to 6",
    )]);
    let ledger = run(BUILT);
    let plan = ledger.expirable(&vector("(9,0)"), |_| 2).expect("some of it may go");
    assert_eq!(show(&plan.below), "(4)");
    assert_eq!(show(&plan.bases[0].0), "(6,0)");
    // And nothing while it looks back over all of it.
    assert_eq!(ledger.expirable(&vector("(9,0)"), |_| 6), None);
}

#[test]
fn rule_27_expired_names_a_base_view_of_every_active_version() {
    refused(&[
        (&format!("D u1@u; {BUILT}; Z{{v1}}(4,0)"), "the entry holds versions [v1], active are [u1, v1]"),
        (
            &format!("{BUILT}; Q p0[1,2); Z@6(4,0)"),
            "entry 7 changes what counts below the boundary, after the plan at 6",
        ),
        (&format!("{BUILT}; Q p0[1,2); P(6,0); L 7; Z@8(4,0)"), "entry 9 changes what counts"),
        (&format!("{BUILT}; Z(2,0); Z@6(4,0)"), "entry 7 removed more of the archive, after the plan at 6"),
        // None of a quarantine's middle is left.
        (&format!("{BUILT}; Q p0[3,5); Z(4,0)"), "what entry 7 leaves out has to be left out of expired"),
    ]);
    run(&format!("{BUILT}; Q p0[1,2); Z(4,0)"));
    run(&format!("{BUILT}; Q p0[4,6); Z(4,0)"));
}

#[test]
fn rule_27_what_may_expire_leaves_no_quarantine_in_two() {
    let plan = |text: &str, wish: &str| {
        let plan = run(text).expirable(&vector(wish), |_| 0);
        plan.map(|plan| (show(&plan.below), plan.bases[0].2.holes.clone()))
    };
    assert_eq!(plan(&format!("{BUILT}; Q p0[3,5)"), "(4,0)"), Some(("(3)".into(), vec![])));
    assert_eq!(plan(&format!("{BUILT}; Q p0[1,3)"), "(4,0)"), Some(("(4)".into(), vec![7])));
    // One of two partitions keeps the other.
    let both = "D v1; A p0→6 p1→6; F p0→6 p1→6; P(6,6); Q p0[1,2) p1[4,5)";
    assert_eq!(plan(both, "(4,4)"), Some(("(1,4)".into(), vec![])));
    assert_eq!(plan(both, "(4,5)"), Some(("(4,5)".into(), vec![6])));
    assert_eq!(plan("D v1; A p0→6; F p0→6", "(4,0)"), None, "nothing is published");
}

#[test]
fn rule_27_a_full_recompute_starts_from_the_base() {
    let ledger = run(&format!("{BUILT}; Q p0[1,2); Z(4,0); A p0→8; F p0→8; Q p0[4,5)"));
    let plan = ledger.plan_batch(&ledger.active(), vector("(8,0)"), true);
    let version = &plan.versions[0];
    assert_eq!((version.mode, show(&version.from).as_str()), (Mode::Full, "(4,0)"));
    assert_eq!(version.keep.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["base"]);
    assert_eq!(version.holes, [7, 11]);
    // The next base view goes on from it.
    let next = ledger.expirable(&vector("(6,0)"), |_| 0).expect("more may go");
    let base = &next.bases[0].2;
    assert_eq!((show(&base.from).as_str(), base.keep.len(), &base.holes), ("(4,0)", 1, &vec![7, 11]));
}

#[test]
fn rule_27_what_left_the_archive_cannot_be_quarantined_or_lifted() {
    refused(&[
        (
            &format!("{BUILT}; Z(4,0); Q p0[2,3)"),
            "w/0 [2, …) cannot be quarantined: the base views of entry 7 hold it up to 4",
        ),
        (&format!("{BUILT}; Z(4,0); Q p0[3,5)"), "w/0 [3, …) cannot be quarantined"),
        (
            &format!("{BUILT}; Z(2,0)+2; Q p0[3,5)"),
            "w/0 [3, …) cannot be quarantined: the base views of entry 7 hold it up to 4",
        ),
        (&format!("{BUILT}; Q p0[1,2); Z(4,0); L 7"), "w/0 [1, …) cannot be lifted"),
    ]);
    run(&format!("{BUILT}; Z(4,0); Q p0[4,5); L 8"));
}

#[test]
fn rule_27_a_version_declared_later_names_what_is_gone_as_a_hole() {
    let text = format!("{BUILT}; Z(4,0); D v2; P(6,0)");
    assert_eq!(holes(&run(&text), "v2"), "p0[0,4)#7 | ");
    assert_eq!(holes(&run(&text), "v1"), " | ");
    // Its own base view goes on leaving it out, and what goes then does not count as a hole any more.
    assert_eq!(holes(&run(&format!("{text}; Z(5,0); P(6,0)")), "v2"), "p0[0,4)#7 | ");
    refused(&[(
        &format!(
            "{BUILT}; Z(4,0); D v2; P@8{{v2,v1}}(6,0); A p0→8; F p0→8; I(8,0); Z(5,0); R v1,v2; D v1; A p0→9; F p0→9; Z(6,0)"
        ),
        "version v1 is still building",
    )]);
}

#[test]
fn rule_27_a_version_declared_anew_since_the_plan_is_refused() {
    // Its base view was built for the life before, and may be gone.
    refused(&[(
        "D v1; A p0→6; F p0→6; P(6,0); R v1; D v1; P(6,0); Z@5(4,0)",
        "version v1 was published or declared by entry 7, after the plan at 5",
    )]);
}

#[test]
fn rule_27_a_version_that_looks_back_further_than_the_one_before_is_no_obstacle() {
    // p1 is quiet: nothing more of it goes, so that nothing more is looked back at.
    let ledger = run("D v1; A p0→20 p1→6; F p0→20 p1→6; P(20,6); Z(4,6); D v2; P(20,6)");
    let plan = ledger.expirable(&vector("(9,6)"), |version| if version.0 == "v2" { 2 } else { 0 }).expect("p0 may go");
    assert_eq!((show(&plan.below).as_str(), show(&plan.bases[1].0).as_str()), ("(9)", "(11,6)"));
}

#[test]
fn trace_v2_declared_z_lands_while_it_builds() {
    refused(&[(&format!("{BUILT}; D v2; Z(4,0)"), "version v2 is still building")]);
    assert_eq!(run(&format!("{BUILT}; D v2")).expirable(&vector("(4,0)"), |_| 0), None);
}

#[test]
fn trace_a_full_recompute_after_z_counts_what_was_counted() {
    // From the base view and what is left; a run that leaves out what is gone is refused.
    let ledger = run(&format!("{BUILT}; Z(4,0); P(6,0)"));
    assert_eq!(holes(&ledger, "v1"), " | ");
    let again = run(&format!("{BUILT}; Q p0[1,2); Z(4,0); P(6,0)"));
    assert_eq!(holes(&again, "v1"), "p0[1,2)#7 | ");
}

#[test]
fn rule_27_files_of_base_views_stay_while_full_recomputes_start_from_them() {
    let ledger = run(&format!("{BUILT}; Z(4,0); A p0→8; F p0→8; P(8,0)"));
    assert!(!ledger.is_orphan("base"), "it is no file of a known folder");
    let named = |number: u64| format!("bases/v1/{number:020}-n.parquet");
    // Written by a plan that is older than the newest `expired`, and not named by it.
    assert!(ledger.is_orphan(&named(7)));
    assert!(ledger.is_orphan(&named(8)), "a run has published since");
    assert!(!ledger.is_orphan(&named(11)), "an entry may still name it");
    assert!(run(&format!("{BUILT}; R v1")).is_orphan(&named(9)), "its version is retired");
}
