//! What the contract says of configuration.

use std::path::Path;
use std::time::Duration;

use bifold_config::{Config, Error, Overrides, Schedule, load};

fn with(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str, &'static str)],
) -> Result<Config, Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bifold.toml");
    std::fs::write(&path, file).expect("write the file");
    let values = flags.iter().map(|(key, text, flag)| (*key, text.to_string(), *flag)).collect();
    let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
    load(&Overrides { config: Some(path), values }, environment.into_iter())
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    with(file, environment, &[]).expect_err("refused").to_string()
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file = "[speed]\nepoch_interval = '7s'\nepoch_rows = 1_000\nlisten = '127.0.0.1:1'";
    let environment = [("BIFOLD_SPEED__EPOCH_ROWS", "2_000"), ("BIFOLD_SPEED__LISTEN", "127.0.0.1:2")];
    let config = with(file, &environment, &[("speed.listen", "127.0.0.1:3", "--listen")]).expect("loads");
    assert_eq!(config.speed.epoch_interval, Duration::from_secs(7));
    assert_eq!(config.speed.epoch_rows, 2_000);
    assert_eq!(config.speed.listen, "127.0.0.1:3");
    assert_eq!(config.collect.flush_interval, Duration::from_secs(10));
    assert_eq!(config.batch.memory, 2 << 30);
    assert_eq!(config.collect.max_record, 1 << 20);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let message = refused("[speed]\nepoch_intervall = '7s'", &[]);
    assert!(message.contains("speed.epoch_intervall") && message.contains("\"speed.epoch_interval\""), "{message}");
    let message = refused("pipelin = 'x'", &[]);
    assert!(message.contains("\"pipeline\""), "{message}");
    let message = refused("", &[("BIFOLD_SPEED__EPOCH", "1s")]);
    assert!(message.contains("BIFOLD_SPEED__EPOCH") && message.contains("\"speed.epoch_"), "{message}");
}

#[test]
fn variables_without_two_underscores_are_ignored_unless_they_are_known() {
    let environment = [("BIFOLD_TEST_KAFKA", "x"), ("BIFOLD_DATA_DIR", "d"), ("BIFOLD_STARTUP_TIMEOUT", "0s")];
    let config = with("", &environment, &[]).expect("loads");
    assert_eq!(config.data_dir, Path::new("d"));
    assert_eq!(config.startup_timeout, None);
}

#[test]
fn librdkafka_properties_keep_their_dots() {
    let file = "[kafka.properties]\n'security.protocol' = 'SASL_SSL'\nfetch.wait.max.ms = 5";
    let config = with(file, &[("BIFOLD_KAFKA__PROPERTIES__SASL__PASSWORD", "Secret")], &[]).expect("loads");
    let properties: Vec<_> = config.kafka.properties.into_iter().collect();
    let text = |k: &str, v: &str| (k.to_string(), v.to_string());
    let want = [text("fetch.wait.max.ms", "5"), text("sasl.password", "Secret"), text("security.protocol", "SASL_SSL")];
    assert_eq!(properties, want);
}

#[test]
fn values_without_a_unit_or_of_another_type_are_refused() {
    for (file, says) in [
        ("[speed]\nepoch_interval = 7", "duration"),
        ("[speed]\nepoch_interval = '0s'", "longer than zero"),
        ("[collect]\nmax_record = 5", "unit"),
        ("[log]\npartitions = 0", "at least 1"),
        ("[serve]\nallow_anonymous = 'yes'", "true or false"),
        ("[batch]\nschedule = 'often'", "cron"),
        ("[store]\nurl = 'ftp://x'", "ftp"),
        ("[speed", "TOML"),
    ] {
        let message = refused(file, &[]);
        assert!(message.contains(says), "{file}: {message}");
    }
}

#[test]
fn lists_schedules_and_paths() {
    let environment = [("BIFOLD_SERVE__SPEED", "http://a:1, http://b:2"), ("BIFOLD_BATCH__SCHEDULE", "*/5 * * * *")];
    let config = with("[store]\nurl = 'here'", &environment, &[]).expect("loads");
    assert_eq!(config.serve.speed, ["http://a:1", "http://b:2"]);
    assert_eq!(config.batch.schedule, Schedule::Cron("*/5 * * * *".into()));
    assert!(config.store.url.starts_with("file:///") && config.store.url.ends_with("/here"), "{}", config.store.url);
    assert!(config.pipeline.is_absolute() && config.pipeline.ends_with("pipeline.sql"));
}
