//! `bifold top`: the services as a screen that is drawn every second.

pub(crate) mod picture;
pub(crate) mod status;

use std::io::IsTerminal;
use std::time::Duration;

use bifold_config::Config;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::widgets::Paragraph;

use crate::args::{Common, OneShot, Top};
use crate::client::Client;
use crate::context::configuration;
use crate::exit::Exit;
use crate::output;
use status::Watch;

/// How often it is drawn.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(common: &Common, top: Top) -> Result<(), Exit> {
    let config = configuration(common, &[])?;
    let shot = OneShot { url: top.url.clone(), timeout: top.timeout, output: None };
    let mut watch = Watch::new(Client::new(&config, &shot), roles(&config, &shot));
    let first = watch.look().await?;
    if !std::io::stdout().is_terminal() {
        return output::line(&serde_json::to_string(&first).map_err(Exit::failed)?);
    }
    let mut terminal = ratatui::init();
    let mut shown: Result<status::Status, String> = Ok(first);
    let ended = loop {
        let drawn = terminal.draw(|frame| {
            let text = match &shown {
                Ok(status) => picture::screen(status, frame.area().width),
                Err(failure) => picture::failure(failure, watch.url()),
            };
            frame.render_widget(Paragraph::new(text), frame.area());
        });
        if let Err(error) = drawn {
            break Err(Exit::failed(error));
        }
        match tokio::task::spawn_blocking(asked_to_end).await {
            Ok(Ok(false)) => shown = watch.look().await.map_err(|failure| failure.to_string()),
            Ok(Ok(true)) => break Ok(()),
            Ok(Err(error)) => break Err(Exit::failed(error)),
            Err(error) => break Err(Exit::failed(error)),
        }
    };
    ratatui::restore();
    ended
}

/// The roles that may run as processes of their own: they have metrics that the serving layer has not.
fn roles(config: &Config, shot: &OneShot) -> Vec<Client> {
    let addresses = config
        .serve
        .speed
        .iter()
        .map(|item| item.replace("dns+http://", "http://"))
        .chain([format!("http://{}", config.collect.listen)]);
    addresses.map(|url| Client::new(config, &OneShot { url: Some(url), ..shot.clone() })).collect()
}

/// Waits for the next drawing; whether a key ends it before.
fn asked_to_end() -> std::io::Result<bool> {
    let until = std::time::Instant::now() + EVERY;
    while let Some(left) = until.checked_duration_since(std::time::Instant::now()) {
        if !event::poll(left)? {
            break;
        }
        match event::read()? {
            Event::Key(key) => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
                _ => {}
            },
            Event::Resize(..) => break,
            _ => {}
        }
    }
    Ok(false)
}
