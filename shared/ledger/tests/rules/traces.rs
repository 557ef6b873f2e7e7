//! The traces that an exhaustive search found, as far as the entries they need are built.

use bifold_ledger::{LiveUnit, Mode, chain};

use crate::dsl::{body, durable, ranges, refused, run, show, vector};

#[test]
fn trace_a_torn_delta_is_refused() {
    refused(&[("D v1; A p0→1; F p0[0,2); P(1,0)", "the boundary cuts through the epoch of entry 4")]);
    assert_eq!(show(&run("D v1; A p0→1; F p0[0,2)").next_boundary(10)), "(0,0)");
}

#[test]
fn trace_torn_across_partitions_is_refused() {
    for archived in ["p0→1", "p0→1 p1→1"] {
        let text = format!("D v1; A {archived}; F p0[0,1) p1[0,1); P(1,0)");
        refused(&[(&text, "the boundary cuts through the epoch of entry 4")]);
    }
    assert_eq!(show(&run("D v1; A p0→1; F p0[0,1) p1[0,1)").next_boundary(10)), "(0,0)");
}

#[test]
fn trace_late_batches_published_in_the_wrong_order() {
    // #5 is (1,0)'s plan, #6 (1,2)'s.
    let text = "D v1; A p0→1 p1→2; F p0→1; A p0→2; F p1→2; P@6(1,2)";
    refused(&[
        (&format!("{text}; P@5(1,0)"), "version v1 was published or declared by entry 7, after the plan at 5"),
        (&format!("{text}; P(1,0)"), "version v1 has a boundary above the one offered"),
    ]);
    assert_eq!(durable(&run(text), "v1"), "(1,2) + [] = (1,2)");
}

#[test]
fn trace_one_version_published_ahead_of_folded_starves_the_other() {
    let message = "a boundary above the frontier must name all active versions; v1 is missing";
    refused(&[("D v1; D v2; A p0→2; P{v2}(2,0)", message)]);
    let both = run("D v1; D v2; A p0→2; P(2,0); F p0[2,3)");
    assert_eq!(
        (durable(&both, "v1"), durable(&both, "v2")),
        ("(2,0) + [6] = (3,0)".into(), "(2,0) + [6] = (3,0)".into())
    );
}

#[test]
fn trace_an_instance_that_knows_only_v1_commits_above_v2s_boundary() {
    let text = "D v1; F p0→1; A p0→1; D v2; P(1,0)";
    refused(&[(&format!("{text}; F{{v1}} p0[1,2)"), "the entry holds versions")]);
    assert_eq!(durable(&run(&format!("{text}; F p0[1,2)")), "v2"), "(1,0) + [7] = (2,0)");
}

#[test]
fn trace_v2_declared_in_mid_epoch() {
    // The open epoch [1,2) holds v1 alone. It cannot be committed as it is; folded again it holds both.
    let epoch = body("F p0[1,2)", &run("D v1; F p0→1"));
    let ledger = run("D v1; F p0→1; D v2");
    assert!(ledger.check(5, &epoch).is_err());
    assert_eq!(show(&ledger.versions[&"v2".into()].declared_at), "(1,0)");
    assert_eq!(durable(&run("D v1; F p0→1; D v2; F p0[1,2); A p0→1; P{v2}(1,0)"), "v2"), "(1,0) + [5] = (2,0)");
}

#[test]
fn trace_a_collectors_landed_put_is_retried_under_the_next_number() {
    refused(&[("D v1; A p0[0,1); A p0[0,1)", "archived w/0 from 0, but the frontier is 1")]);
}

#[test]
fn trace_a_ledger_trimmed_below_a_paused_writer() {
    // The units are forgotten, their numbers and offsets are not.
    let paused = body("F p0→1", &run("D v1"));
    let ledger = run("D v1; F p0→1; A p0→1; P(1,0)");
    assert!(ledger.units.is_empty());
    assert_eq!(ledger.check(3, &paused).expect_err("taken").to_string(), "entry 3 does not follow entry 5");
    let late = ledger.check(6, &paused).expect_err("folded").to_string();
    assert_eq!(late, "folded w/0 from 0, but the frontier is 1");
}

#[test]
fn trace_a_zombies_open_epoch_beside_the_new_owners() {
    refused(&[
        ("D v1; F p0[0,2); F p0[0,1)", "folded w/0 from 0, but the frontier is 2"),
        ("D v1; F p0[0,1); F p0[0,2)", "folded w/0 from 0, but the frontier is 1"),
    ]);
    let unit = |text| LiveUnit { ranges: ranges(text, |_| 0), folded_under: 2 };
    let rivals = [unit("p0[0,1)"), unit("p0[0,2)")];
    assert_eq!(chain(&vector("(0,0)"), &rivals).used, [0]);
    assert!(chain(&vector("(1,0)"), &rivals).used.is_empty());
}

#[test]
fn trace_deltas_after_it_are_not_those_numbered_after_it() {
    // #4 and #5 both stand before the batch view in the ledger; #5 lies above its boundary.
    assert_eq!(durable(&run("D v1; A p0→1; F p0[0,1); F p0[1,2); P@4(1,0)"), "v1"), "(1,0) + [5] = (2,0)");
}

#[test]
fn trace_two_runs_publish_and_the_loser_names_a_collected_file() {
    let text = "D v1; A p0→1; F p0→1; P@4(1,0)";
    refused(&[(&format!("{text}; P@4(1,0)"), "version v1 was published or declared by entry 5, after the plan at 4")]);
}

#[test]
fn trace_v1_declared_again_after_a_leap_of_v2_alone_is_built_anew() {
    let text = "D v1; A p0→1; F p0→1; D v2; P(1,0); R v1; A p0→3; P{v2}(3,0); D v1";
    let ledger = run(text);
    assert_eq!(durable(&ledger, "v1"), "version v1 is being built");
    assert_eq!(durable(&ledger, "v2"), "(3,0) + [] = (3,0)");
    assert_eq!(ledger.served("v"), Some(&"v2".into()));
    refused(&[(&format!("{text}; P{{v1}}(1,0)"), "the first boundary of version v1 must reach the frontier")]);
    let plan = ledger.plan_batch(&["v1".into()], ledger.next_boundary(10), false);
    assert_eq!(
        (show(&plan.boundary).as_str(), plan.versions[0].mode, plan.versions[0].keep.len()),
        ("(3,0)", Mode::Full, 0)
    );
    assert_eq!(durable(&run(&format!("{text}; P{{v1}}(3,0); F p0→4")), "v1"), "(3,0) + [12] = (4,0)");
}
