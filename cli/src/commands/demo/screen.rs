//! Where the demo speaks: plain lines, or on a terminal lines that scroll above a picture.

use std::io::{IsTerminal, Stdout};

use ratatui::backend::CrosstermBackend;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Widget, Wrap};
use ratatui::{Terminal, TerminalOptions, Viewport};

use crate::exit::Exit;
use crate::output;

/// Lines of the picture.
const HEIGHT: u16 = 18;

/// Where the demo speaks.
pub(super) struct Screen(Option<Terminal<CrosstermBackend<Stdout>>>);

impl Screen {
    /// Plain lines.
    pub(super) fn plain() -> Self {
        Self(None)
    }

    /// With a picture, if there is a terminal that is large enough.
    pub(super) fn with_picture() -> Self {
        let large = ratatui::crossterm::terminal::size().is_ok_and(|(width, height)| width >= 80 && height > HEIGHT);
        if !std::io::stdout().is_terminal() || !large {
            return Self::plain();
        }
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        Self(Terminal::with_options(CrosstermBackend::new(std::io::stdout()), options).ok())
    }

    /// Whether there is a picture.
    pub(super) fn has_picture(&self) -> bool {
        self.0.is_some()
    }

    /// Says something, in one line or several.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Exit> {
        let Some(terminal) = &mut self.0 else { return output::line(text) };
        let width = usize::from(terminal.size().map_err(Exit::failed)?.width.max(1));
        let height: usize = text.lines().map(|line| line.chars().count().div_ceil(width).max(1)).sum();
        let paragraph = Paragraph::new(Text::raw(text)).wrap(Wrap { trim: false });
        let height = u16::try_from(height).unwrap_or(u16::MAX);
        terminal.insert_before(height, |buffer| paragraph.render(buffer.area, buffer)).map_err(Exit::failed)
    }

    /// Draws the picture.
    pub(super) fn draw(&mut self, lines: Vec<Line<'static>>) -> Result<(), Exit> {
        let Some(terminal) = &mut self.0 else { return Ok(()) };
        let paragraph = Paragraph::new(Text::from(lines));
        terminal.draw(|frame| frame.render_widget(paragraph, frame.area())).map(|_| ()).map_err(Exit::failed)
    }

    /// Takes the picture away; what is said from here on are plain lines.
    pub(super) fn close(&mut self) {
        if let Some(mut terminal) = self.0.take() {
            let cleared = terminal.clear().and_then(|()| terminal.show_cursor());
            if let Err(error) = cleared {
                tracing::debug!(%error, "the terminal was not cleared");
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}
