//! `bifold`: parses its arguments, starts what they name, waits, and exits with the code that the contract gives.

mod args;
mod client;
mod commands;
mod context;
mod exit;
mod output;
mod progress;
mod services;

use std::process::ExitCode;

use args::{Arguments, BatchCommand, Command};
use clap::Parser;
use exit::Exit;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed pipe is no failure of ours.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    start_logging();
    // Each source on Kafka takes dozens of descriptors, and each client one. What the system allows is taken.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let builder = &mut tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().thread_name("bifold").thread_stack_size(bifold_fold::STACK).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::from(1);
        }
    };
    // On a worker: the main thread's stack is too small for the plans of long expressions.
    let ended = runtime.block_on(runtime.spawn(run(arguments)));
    let ended = ended.unwrap_or_else(|e| Err(Exit::Failed(format!("{e}; this is a bug of bifold"))));
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // No failure: its rows say it.
        Err(exit @ Exit::Planned) => ExitCode::from(exit.code()),
        Err(exit) => {
            eprintln!("error: {exit}");
            ExitCode::from(exit.code())
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Exit> {
    let common = arguments.common;
    match arguments.command {
        Command::Up(service) => services::up(&common, &service).await,
        Command::Collect(service) => services::collect(&common, &service).await,
        Command::Speed(service) => services::speed(&common, &service).await,
        Command::Serve(service) => services::serve(&common, &service).await,
        Command::Batch { command: BatchCommand::Run(run) } => commands::batch::run(&common, run).await,
        Command::Batch { command: BatchCommand::Runs(shot) } => commands::batch::list(&common, shot).await,
        Command::Batch { command: BatchCommand::Schedule(service) } => services::batch(&common, &service).await,
        Command::Verify(verify) => commands::verify::run(&common, verify).await,
        Command::Query(query) => commands::query::run(&common, query).await,
        Command::Top(top) => commands::top::run(&common, top).await,
        Command::Views(shot) => commands::views::run(&common, shot).await,
        Command::Check(check) => commands::check::run(&common, check).await,
        Command::Plan(shot) => commands::plan::run(&common, shot).await,
        Command::Upgrade(upgrade) => commands::upgrade::run(&common, upgrade).await,
        Command::Files(files) => commands::files::run(&common, files).await,
        Command::DeadLetters(letters) => commands::dead_letters::run(&common, letters).await,
        Command::Quarantine(command) => commands::changes::quarantine(&common, command).await,
        Command::AcceptLoss(command) => commands::changes::accept_loss(&common, command).await,
        Command::Audit(audit) => commands::audit::run(&common, audit).await,
        Command::Produce(produce) => commands::produce::run(&common, produce).await,
        Command::Demo(demo) => commands::demo::run(&common, demo).await,
    }
}

/// Logs go to stderr, by `BIFOLD_LOG`: a level, or tracing's filter directives; with `BIFOLD_LOG_FORMAT=json` an object a line.
fn start_logging() {
    use std::io::IsTerminal;
    let text = std::env::var("BIFOLD_LOG").unwrap_or_else(|_| "info".to_string());
    let filter = tracing_subscriber::EnvFilter::try_new(&text).unwrap_or_else(|_| {
        eprintln!("BIFOLD_LOG={text:?} is no level; using info");
        tracing_subscriber::EnvFilter::new("info")
    });
    let format = std::env::var("BIFOLD_LOG_FORMAT").unwrap_or_else(|_| "text".to_string());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if format == "json" {
        return logs.json().flatten_event(true).init();
    }
    if format != "text" {
        eprintln!("BIFOLD_LOG_FORMAT={format:?} is neither text nor json; using text");
    }
    logs.with_ansi(std::io::stderr().is_terminal()).init();
}
