//! Rules 11-14 and 19: boundaries, batch plans, the life of versions.

use bifold_ledger::{Body, Ledger, Mode, PublishedVersion, VersionId};

use crate::dsl::{body, durable, published, refused, run, show, trace, vector};

/// The boundary a run would choose with a leap of 10.
fn boundary(text: &str) -> String {
    show(&run(text).next_boundary(10))
}

/// `version mode from keep` of each version that a run plans for, of all active ones, at the next boundary.
fn plan(text: &str, full: bool) -> Vec<String> {
    let ledger = run(text);
    let plan = ledger.plan_batch(&ledger.active(), ledger.next_boundary(10), full);
    assert_eq!(plan.plan, ledger.number);
    let line =
        |v: &bifold_ledger::VersionPlan| format!("{} {:?} {} {}", v.version, v.mode, show(&v.from), v.keep.len());
    plan.versions.iter().map(line).collect()
}

#[test]
fn rule_11_groups_beyond_a_retention_come_back_by_a_full_run_alone() {
    let mut trace = trace("M 3; D v1; A p0→4; F p0→4");
    let mut publish = |full: bool, kept_from_us: Option<i64>| {
        let (boundary, runs) = (vector("(4,0)"), vec![]);
        let version =
            PublishedVersion { version: "v1".into(), runs, full, kept_from_us, ..PublishedVersion::default() };
        trace.append(Body::Published { plan: trace.ledger.number, boundary, versions: vec![version] })
    };
    assert_eq!(publish(true, Some(100)), Ok(()));
    assert_eq!(publish(false, Some(200)), Ok(()));
    let refusal = publish(false, Some(150)).expect_err("it holds more than it can");
    assert!(refusal.to_string().starts_with("version v1 holds groups only from a later time on"), "{refusal}");
    assert!(publish(false, None).is_err());
    assert_eq!(publish(true, Some(50)), Ok(()), "all of it was computed again");
}

#[test]
fn rule_11_a_boundary_is_archived() {
    run("D v1; F p0→1 p1→1; A p0→1 p1→1; P(1,1)");
    refused(&[
        ("D v1; F p0→1; P(1,0)", "the boundary w/0:1 is beyond the archive, which ends at 0"),
        ("D v1; F p0→1 p1→1; A p0→1; P(1,1)", "the boundary w/1:1 is beyond the archive, which ends at 0"),
        ("O(3); D v1; F p0→4; P(4)", "the boundary w/0:4 is beyond the archive, which ends at 3"),
    ]);
}

#[test]
fn rule_11_a_boundary_is_a_cut() {
    let epochs = "D v1; A p0→4 p1→4; F p0→2; F p0→3 p1→2; F p1→4";
    for cut in ["(0,0)", "(2,0)", "(3,2)", "(3,4)"] {
        run(&format!("{epochs}; P{cut}"));
    }
    for (torn, unit) in
        [("(1,0)", 4), ("(2,1)", 5), ("(3,0)", 5), ("(2,2)", 5), ("(3,1)", 5), ("(3,3)", 6), ("(0,2)", 5)]
    {
        let message = format!("the boundary cuts through the epoch of entry {unit}");
        refused(&[(&format!("{epochs}; P{torn}"), &message)]);
    }
}

#[test]
fn rule_11_epochs_of_other_partitions_are_cut_apart() {
    run("D v1; A p0→1 p1→1; F p0→1; F p1→1; P(0,1); P(1,1)");
}

#[test]
fn rule_11_a_boundary_is_not_below_the_one_before() {
    let begun = "D v1; D u1@u; A p0→2 p1→2; F p0→1; F p0→2; F p1→2; P{v1}(2,0)";
    run(&format!("{begun}; P{{v1}}(2,0)"));
    run(&format!("{begun}; P{{v1}}(2,2)"));
    run(&format!("{begun}; P{{u1}}(1,0)")); // another version's may be
    refused(&[
        (&format!("{begun}; P{{v1}}(1,0)"), "version v1 has a boundary above the one offered"),
        (&format!("{begun}; P{{v1}}(1,2)"), "version v1 has a boundary above the one offered"),
        (&format!("{begun}; P{{u1,v1}}(1,2)"), "version v1 has a boundary above the one offered"),
    ]);
}

#[test]
fn rule_11_published_names_active_versions_only() {
    let begun = "D v1; D v2; A p0→1; F p0→1; R v1";
    refused(&[
        (&format!("{begun}; P{{v1}}(1,0)"), "version v1 is not active"),
        (&format!("{begun}; P{{v2,v1}}(1,0)"), "version v1 is not active"),
        (&format!("{begun}; P{{v9}}(1,0)"), "version v9 is not active"),
        (&format!("{begun}; P{{}}(1,0)"), "an entry of kind published that holds nothing"),
    ]);
}

#[test]
fn rule_11_published_names_each_version_once() {
    refused(&[("D v1; A p0→1; F p0→1; P{v1,v1}(1,0)", "")]);
}

#[test]
fn rule_11_nothing_was_published_or_declared_of_its_versions_since_the_plan() {
    let begun = "D v1; D v2@u; A p0→1; F p0→1";
    run(&format!("{begun}; P@5{{v1}}(1,0); P@5{{v2}}(1,0)")); // of another version: no matter
    run(&format!("{begun}; D v3; A p0→2; P@5{{v1}}(1,0)"));
    refused(&[
        (&format!("{begun}; P@5{{v1}}(1,0); P@5{{v1,v2}}(1,0)"), "version v1 was published or declared by entry 6"),
        (&format!("{begun}; R v2; D v2; P@5{{v2}}(1,0)"), "version v2 was published or declared by entry 7, after the"),
        (&format!("{begun}; R v2; D v2; P@6{{v2}}(1,0)"), "version v2 was published or declared by entry 7, after the"),
    ]);
    run(&format!("{begun}; R v2; D v2; P@7{{v2}}(1,0)"));
}

#[test]
fn rule_11_a_plan_is_older_than_its_entry() {
    refused(&[("D v1; A p0→1; F p0→1; P@6(1,0)", "")]);
}

#[test]
fn rule_12_a_leap_names_all_active_versions() {
    let begun = "D v2; D v1; D u1@u; R v2; F p0→1; A p0→9 p1→9";
    for leap in ["(9,9)", "(2,0)", "(1,1)", "(0,9)"] {
        if leap != "(0,9)" {
            run(&format!("{begun}; P{{v1,u1}}{leap}"));
        }
        let alone = format!("{begun}; P{{v1}}{leap}");
        refused(&[(&alone, "a boundary above the frontier must name all active versions; u1 is missing")]);
    }
    run(&format!("{begun}; P{{v1}}(1,0)")); // no leap
    run("D v1; A p0→9; F p0→1; P(0,0); F p0→2; D v2; P(9,0)"); // a building version leaps along
    refused(&[("D v1; A p0→9; D v2; P{v1}(9,0)", "a boundary above the frontier must name all active versions; v2")]);
}

#[test]
fn rule_12_a_plan_takes_all_active_versions_over_a_leap() {
    let ledger = run("D v1; D u1@u; A p0→11");
    let plan = ledger.plan_batch(&["v1".into()], ledger.next_boundary(10), false);
    let planned: Vec<_> = plan.versions.iter().map(|v| (v.version.0.as_str(), v.mode)).collect();
    assert_eq!(planned, [("u1", Mode::Full), ("v1", Mode::Full)]);
}

#[test]
fn rule_13_a_sources_first_versions_are_complete_and_empty_at_the_origin() {
    for text in ["D v1", "A p0→5; D v1", "O(3,4); D v1", "D v0@u; R v0; D v1"] {
        let ledger = run(text);
        assert!(ledger.versions[&"v1".into()].complete(), "{text}");
        assert_eq!(durable(&ledger, "v1"), format!("{0} + [] = {0}", show(&ledger.origins)));
        assert_eq!(ledger.served("v"), Some(&"v1".into()));
    }
}

#[test]
fn rule_13_a_later_version_builds_until_a_boundary_reaches_its_declaration() {
    let begun = "D v1; A p0→3 p1→3; F p0→1; F p1→1; D v2; F p0→2";
    let ledger = run(begun);
    assert_eq!(durable(&ledger, "v2"), "version v2 is being built");
    assert_eq!(ledger.building().map(|(id, _)| id.0.as_str()).collect::<Vec<_>>(), ["v2"]);
    let first = "the first boundary of version v2 must reach the frontier at its declaration";
    refused(&[(&format!("{begun}; P(1,0)"), first), (&format!("{begun}; P{{v2}}(0,1)"), first)]);
    assert_eq!(durable(&run(&format!("{begun}; P(1,1)")), "v2"), "(1,1) + [7] = (2,1)");
    assert_eq!(durable(&run(&format!("{begun}; P(2,1)")), "v2"), "(2,1) + [] = (2,1)");
    assert_eq!(run(&format!("{begun}; P(2,1)")).building().count(), 0);
}

#[test]
fn rule_13_a_life_begins_at_the_newest_declaration() {
    let again = "D v1; D v2; A p0→2; F p0→1; P(1,0); F p0→2; R v1; D v1";
    let ledger = run(again);
    assert_eq!(durable(&ledger, "v1"), "version v1 is being built");
    assert!(ledger.versions[&"v1".into()].runs.is_empty());
    refused(&[(&format!("{again}; P{{v1}}(1,0)"), "the first boundary of version v1 must reach")]);
    assert_eq!(durable(&run(&format!("{again}; P{{v1}}(2,0)")), "v1"), "(2,0) + [] = (2,0)");
}

#[test]
fn rule_13_served_is_the_complete_version_declared_or_selected_last() {
    for (text, served) in [
        ("D v1; D u1@u", Some("v1")),
        ("D v1; D v2", Some("v2")),
        ("D v1; D v2; S v1", Some("v1")),
        ("D v1; D v2; S v1; S v2", Some("v2")),
        ("D v1; D v2; S v1; D v3", Some("v3")),
        ("D v1; F p0→1; D v2", Some("v1")),
        ("D v1; F p0→1; D v2; A p0→1; P(1,0)", Some("v2")),
        ("D v1; F p0→1; D v2; A p0→1; S v1; P(1,0)", Some("v1")),
        ("D v1; D v2; R v1", Some("v2")),
        ("D v1; D v2; R v1,v2", None),
        ("D v1; F p0→1; R v1; D v2", None),
    ] {
        assert_eq!(run(text).served("v").map(|id| id.0.as_str()), served, "{text}");
    }
    assert_eq!(run("D v1; F p0→1; D v2").newest("v"), Some(&"v2".into()));
}

#[test]
fn rule_13_selected_names_a_complete_active_version() {
    refused(&[
        ("D v1; F p0→1; D v2; S v2", "version v2 is still building"),
        ("D v1; D v2; R v1; S v1", "version v1 is not active"),
        ("D v1; S v9", "version v9 is not active"),
    ]);
}

#[test]
fn rule_13_retired_names_what_is_not_served_or_the_whole_view() {
    run("D v1; D v2; R v1");
    run("D v1; D v2; S v1; R v2");
    run("D v1; D v2; R v2,v1");
    run("D v1; D u1@u; R v1");
    run("D v1; D v2; D u1@u; D u2@u; R v1,u1,u2");
    let served = "version v2 is served; retire all versions of its view, or select another first";
    refused(&[
        ("D v1; D v2; R v2", served),
        ("D v1; D v2; D v3; S v2; R v2,v1", served),
        ("D v1; D v2; D u1@u; R u1,v2", served),
        ("D v1; F p0→1; D v2; R v1", "version v1 is served"),
        ("D v1; R v2", "version v2 is not active"),
        ("D v1; D v2; R v1; R v1", "version v1 is not active"),
    ]);
}

#[test]
fn rule_13_retired_names_something() {
    refused(&[("D v1; R", "an entry of kind retired that holds nothing")]);
}

#[test]
fn rule_13_declared_names_what_is_not_active() {
    run("D v1; R v1; D v1");
    refused(&[("D v1; D v1", "version v1 is active"), ("D v1; D v1@u", "version v1 is active")]);
}

#[test]
fn rule_13_a_view_declared_after_another_was_dropped_is_built_on_a_quiet_source() {
    for text in ["D v1; A p0→2; F p0→2; R v1; D u1@u", "D v1; A p0→2; F p0→2; D u1@u; R v1"] {
        assert_eq!(boundary(text), "(2,0)", "{text}");
        assert_eq!(plan(text, false), ["u1 Full (0,0) 0"], "{text}");
    }
    // Nor does it wait for events of every partition.
    assert_eq!(boundary("D v1; A p0→2 p1→1; F p0→2 p1→1; R v1; D u1@u; F p0→3; A p0→3"), "(3,1)");
}

#[test]
fn rule_13_versions_older_than_the_served_one_may_be_retired_beyond_the_number_kept() {
    for (text, keep, retirable) in [
        ("D v1; D v2; D v3", 0, vec!["v2", "v1"]),
        ("D v1; D v2; D v3", 1, vec!["v1"]),
        ("D v1; D v2; D v3", 2, vec![]),
        ("D v1; D v2; D u1@u; D v3", 1, vec!["v1"]),
        ("D v1; D v2; D v3; R v1", 1, vec![]),
        ("D v1; F p0→1; D v2", 0, vec![]),
        ("D v1; F p0→1; R v1; D v2", 0, vec![]),
    ] {
        let versions: Vec<VersionId> = retirable.into_iter().map(VersionId::from).collect();
        assert_eq!(run(text).retirable("v", keep), versions, "{text}, {keep} kept");
    }
}

#[test]
fn rule_13_going_back_makes_no_newer_version_retirable() {
    assert_eq!(run("D v1; D v2; D v3; S v1").retirable("v", 1), []);
}

#[test]
fn rule_14_a_refused_run_extends_its_result_to_a_newer_cut() {
    let raced = "D v1; D v2; A p0→9; F p0→1; D u1@u; R v1; F p0→4"; // planned the leap (3,0) at 5
    refused(&[
        (&format!("{raced}; P@5{{v1,v2}}(3,0)"), "the boundary cuts through the epoch of entry 8"),
        (&format!("{raced}; P@5{{v1,v2}}(4,0)"), "version v1 is not active"),
    ]);
    run(&format!("{raced}; P@5{{v2}}(4,0)"));
    refused(&[(&format!("{raced}; P@5{{v2}}(9,0)"), "a boundary above the frontier must name all")]);
}

#[test]
fn rule_14_a_run_whose_plan_was_overtaken_starts_over() {
    let raced = "D v1; A p0→9; F p0→1; F p0→2; P@4(1,0)";
    refused(&[(&format!("{raced}; P@4(2,0)"), "version v1 was published or declared by entry 6, after the plan at 4")]);
    run(&format!("{raced}; P@6(2,0)"));
}

#[test]
fn rule_11_the_next_boundary_is_the_newest_archived_prefix_of_epochs() {
    for (text, next) in [
        ("D v1", "(0,0)"),
        ("O(5,6); D v1", "(5,6)"),
        ("D v1; F p0→2; A p0→1", "(0,0)"),
        ("D v1; F p0→2; A p0→2", "(2,0)"),
        ("D v1; A p0→9; F p0→2; F p0→3", "(3,0)"),
        ("D v1; A p0→9; F p0→2 p1→1; F p0→3", "(0,0)"),
        ("D v1; A p0→9; F p0→2; F p1→1; F p0→3", "(2,0)"), // a prefix: p1 is not archived
        ("D v1; A p0→9 p1→1; F p0→2; F p1→1; F p0→3", "(3,1)"),
        ("D v1; A p0→5; F p0→2; P(2,0); F p0→4", "(4,0)"),
        ("D v1; A p0→5; P(5,0)", "(5,0)"),
        ("D v1; A p0→5; P(5,0); F p0→7", "(5,0)"),
        ("D v1; D v2; A p0→5; F p0→2; F p0→4; P{v1}(4,0)", "(4,0)"),
        ("O(5); D v1; F p0→7 p1→1; A p0→7 p1→2", "(7,1)"),
        ("D v1; D u1@u; A p0→2; F p0→1; F p0→2; P{v1}(2,0); P{u1}(1,0); R u1", "(2,0)"),
    ] {
        assert_eq!(boundary(text), next, "{text}");
    }
}

#[test]
fn rule_11_the_next_boundary_leaps_where_the_fold_is_far_behind() {
    for (text, next) in [
        ("D v1; A p0→10", "(0,0)"),
        ("D v1; A p0→11", "(11,0)"),
        ("D v1; A p0→13 p1→1; F p0→2", "(13,1)"),
        ("D v1; A p0→13 p1→1; F p0→3", "(3,0)"),
        ("O(100); D v1; A p0→110", "(100)"),
        ("O(100); D v1; A p0→111 p1→1", "(111,1)"),
        ("D v1; F p0→1 p1→1; A p0→20", "(0,0)"), // it would be torn
    ] {
        assert_eq!(boundary(text), next, "{text}");
    }
}

#[test]
fn rule_11_a_leap_does_not_wait_for_a_quiet_partition() {
    assert_eq!(boundary("O(0,5); D v1; A p0→100"), "(100,5)");
}

#[test]
fn rule_11_a_leap_needs_a_cut_and_no_more() {
    assert_eq!(show(&run("D v1; F p1→1; A p0→20; P(20,0)").effective()), "(20,1)");
    assert_eq!(boundary("D v1; F p1→1; A p0→20"), "(20,0)");
    // A building version must be able to go along.
    assert_eq!(boundary("D v1; F p1→1; D v2; A p0→20"), "(0,0)");
}

#[test]
fn rule_11_what_is_planned_may_be_published() {
    for text in [
        "D v1; A p0→2; F p0→2",
        "O(5,6); D v1; A p0→7; F p0→7 p1→7",
        "D v1; A p0→2; F p0→1; D v2; F p0→2",
        "D v1; A p0→99; F p0→1; D v2; F p0→2",
        "D v1; D v2; A p0→5; F p0→2; F p0→4; P{v1}(4,0); P{v2}(2,0)",
    ] {
        let ledger = run(text);
        for (leap, full) in [(0, false), (0, true), (i64::MAX, false), (i64::MAX, true)] {
            let plan = ledger.plan_batch(&ledger.active(), ledger.next_boundary(leap), full);
            let built = plan.versions.into_iter().filter(|v| v.mode != Mode::None);
            let versions: Vec<_> = built.map(|v| published(v.version, "run")).collect();
            if !versions.is_empty() {
                let body = Body::Published { plan: plan.plan, boundary: plan.boundary, versions };
                assert_eq!(ledger.check(ledger.number + 1, &body), Ok(()), "{text}, leap {leap}, full {full}");
            }
        }
    }
}

#[test]
fn a_plan_reads_what_the_runs_lack() {
    for (text, full, planned) in [
        ("D v1", false, vec!["v1 None (0,0) 0"]),
        ("D v1", true, vec!["v1 None (0,0) 0"]),
        ("O(5,6); D v1", true, vec!["v1 None (5,6) 0"]),
        ("D v1; F p0→2; A p0→1", false, vec!["v1 None (0,0) 0"]),
        ("O(5,6); D v1; F p0→7; A p0→7", false, vec!["v1 Full (5,6) 0"]),
        ("D v1; F p0→2; A p0→2; P(2,0)", false, vec!["v1 None (2,0) 1"]),
        ("D v1; F p0→2; A p0→2; P(2,0)", true, vec!["v1 Full (0,0) 0"]),
        ("D v1; F p0→2; A p0→3; P(2,0); F p0→3", false, vec!["v1 Incremental (2,0) 1"]),
        ("D v1; F p0→2; A p0→3; P(2,0); F p0→3", true, vec!["v1 Full (0,0) 0"]),
        ("D v1; F p0→2; A p0→3; P(2,0); D v2", false, vec!["v1 None (2,0) 1", "v2 Full (0,0) 0"]),
        ("D v1; F p0→2; F p0→3; D v2; A p0→2", false, vec!["v1 Full (0,0) 0", "v2 None (2,0) 0"]),
        ("D v1; F p0→2; A p0→20; P(2,0); D v2", false, vec!["v1 Incremental (2,0) 1", "v2 Full (0,0) 0"]),
    ] {
        assert_eq!(plan(text, full), planned, "{text}, full {full}");
    }
}

#[test]
fn a_plan_is_for_the_versions_wanted() {
    let ledger = run("D v2; D v1; D u1@u; R v2; F p0→1; A p0→1");
    let planned = |wanted: &[&str]| {
        let wanted: Vec<VersionId> = wanted.iter().map(|id| (*id).into()).collect();
        let plan = ledger.plan_batch(&wanted, vector("(1,0)"), false);
        plan.versions.into_iter().map(|v| format!("{} of {}", v.version, v.view)).collect::<Vec<_>>()
    };
    assert_eq!(planned(&["v1", "v2", "v9"]), ["v1 of v"]);
    assert_eq!(planned(&["u1", "v1"]), ["u1 of u", "v1 of v"]);
    assert_eq!(planned(&[]), Vec::<String>::new());
}

#[test]
fn rule_19_deltas_stay_from_the_lowest_boundary_of_active_versions() {
    let kept = |ledger: &Ledger| ledger.units.iter().map(|unit| unit.number).collect::<Vec<_>>();
    for (after, units) in [
        ("P{v1}(3,0)", vec![5, 6, 7]),
        ("P{v1}(3,0); P{u1}(1,0)", vec![6, 7]),
        ("P{v1}(3,0); P{u1}(3,0)", vec![]),
        ("P{v1}(3,0); R u1", vec![]),
        ("P(2,0)", vec![7]),
        ("P(2,0); S v1", vec![7]),
        ("D v2; P(3,0)", vec![]),
        ("D v2; F p0→4; P{v1,u1}(4,0)", vec![9]), // a building version: from the frontier at its declaration
        ("D v2; F p0→4; P{v1,u1}(4,0); R v2", vec![]),
    ] {
        let text = format!("D v1; D u1@u; A p0→4; F p0→1; F p0→2; F p0→3; {after}");
        assert_eq!(kept(&run(&text)), units, "{text}");
    }
}

#[test]
fn rule_19_going_back_moves_no_boundary() {
    let text = "D v1; D v2; A p0→3; F p0→1; F p0→2; P(1,0); P{v2}(2,0)";
    let (before, after) = (run(text), run(&format!("{text}; S v1")));
    assert_eq!((after.effective(), &after.units), (before.effective(), &before.units));
    assert_eq!(durable(&after, "v1"), "(1,0) + [6] = (2,0)");
    assert_eq!(durable(&after, "v2"), "(2,0) + [] = (2,0)");
}

#[test]
fn rule_20_a_loser_may_name_its_file_under_a_later_number_if_it_is_valid_there() {
    // What was taken from under it decides, not the number.
    let file = body("F p0→1", &run("D v1"));
    for (taken, valid) in [("A p0→1", true), ("F p1→1", true), ("F p0→1", false), ("D v2", false)] {
        let ledger = run(&format!("D v1; {taken}"));
        assert_eq!(ledger.check(ledger.number + 1, &file).is_ok(), valid, "{taken}");
    }
}

#[test]
fn rule_22_a_boundary_bridges_what_the_log_dropped() {
    // Kafka begins at 8, the fold stands at 2, the archive has it all: after the leap the fold goes on at 9.
    let ledger = run("D v1; F p0→2; A p0→9; P(9,0); F p0[9,10)");
    assert_eq!(durable(&ledger, "v1"), "(9,0) + [6] = (10,0)");
}
