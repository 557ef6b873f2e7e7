//! The conformance suite of the log: one set of checks that every [`Log`](bifold_log::Log) passes, and what each log
//! promises beyond it.
//!
//! The local log is always checked. Kafka is checked on the broker named by `BIFOLD_TEST_KAFKA` (`host:port`): the
//! checks make topics of their own, with names that no run has twice, and delete them at the end. Without that variable
//! the tests under `kafka::` do nothing, which a line on standard error says.

#[path = "conformance/contract.rs"]
mod contract;
#[path = "conformance/kafka_only.rs"]
mod kafka_only;
#[path = "conformance/local_only.rs"]
mod local_only;
#[path = "conformance/subject.rs"]
mod subject;

/// Makes a test of each claim of the contract for each log, and of Kafka's own claims.
macro_rules! suite {
    (every log: $($shared:ident)* ; kafka: $($kafka:ident)*) => {
        mod local {
            $(#[test] fn $shared() { crate::contract::$shared(&crate::subject::Subject::local()) })*
        }
        mod kafka {
            $(#[test] fn $shared() { crate::subject::Subject::on_kafka(crate::contract::$shared) })*
            $(#[test] fn $kafka() { crate::subject::Subject::on_kafka(crate::kafka_only::$kafka) })*
        }
    };
}

suite! {
    every log:
    describe_tells_topics_and_omits_missing_ones
    describe_takes_no_names_and_names_twice
    creating_a_topic_again_leaves_it_as_it_is
    append_gives_the_end_of_each_partition_that_got_records
    append_to_a_missing_topic_fails_and_creates_nothing
    a_topic_created_after_a_failed_append_takes_records
    keyed_records_land_by_murmur2_in_order
    records_without_a_key_are_spread
    tombstones_and_empty_values_are_told_apart
    keys_are_delivered_only_if_asked_for
    timestamps_are_those_of_the_append
    concurrent_appends_are_all_kept
    reading_starts_at_any_offset
    reading_from_the_end_brings_only_what_follows
    positions_reach_the_end_of_every_partition
    a_new_assignment_forgets_the_one_before
    an_empty_assignment_reads_nothing
    max_records_bounds_a_chunk_and_nothing_is_lost
    values_beyond_one_chunk_all_arrive
    a_reader_of_little_memory_reads_everything
    poll_wakes_upon_an_append
    poll_of_a_quiet_log_ends
    readers_do_not_disturb_each_other
    bounds_tell_start_and_end
    bounds_of_what_does_not_exist_are_missing
    a_position_beyond_the_end_is_out_of_range
    other_partitions_go_on_after_one_is_out_of_range
    ;
    kafka:
    aborted_records_are_invisible_and_positions_pass_markers
    reading_may_start_on_a_marker_or_in_an_aborted_range
    records_behind_an_open_transaction_wait_for_its_end
    a_waiting_reader_passes_an_aborted_transaction
    headers_are_delivered_only_if_asked_for
    timestamps_of_foreign_records_are_delivered
    topics_of_every_compression_are_readable
    deleted_records_are_out_of_range
    a_recreated_topic_has_another_id
    leader_epochs_come_with_positions
    an_assignment_takes_leader_epochs
    a_position_beyond_the_end_of_its_leader_epoch_is_truncated
    a_record_beyond_the_limit_is_refused_for_good
    committed_positions_are_seen_by_monitoring_tools
    members_share_partitions_and_release_before_others_take
}
