//! A status as coloured lines.

use bytesize::ByteSize;
use indicatif::HumanCount;
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span, Text};

use super::status::{Partition, Source, Status, View};

/// Cells of a partition's bar.
const CELLS: usize = 32;

/// All of it.
pub(crate) fn screen(status: &Status, width: u16) -> Text<'static> {
    let mut lines = vec![head(status)];
    for reason in &status.waits {
        lines.push(Line::from(format!("  waits for {reason}")).yellow());
    }
    for source in &status.sources {
        lines.push(Line::default());
        lines.extend(source_lines(source));
    }
    lines.push(Line::default());
    lines.extend(view_lines(&status.views, usize::from(width)));
    lines.push(Line::default());
    lines.push(Line::from(vec![
        Span::styled("█", batch()),
        Span::raw(" batch  "),
        Span::styled("▓", speed()),
        Span::raw(" speed  "),
        Span::styled("░", lag()),
        Span::raw(" not yet   q ends it"),
    ]));
    Text::from(lines)
}

/// What stands there when the server does not answer.
pub(crate) fn failure(failure: &str, url: &str) -> Text<'static> {
    Text::from(vec![Line::from(format!("bifold at {url}")).bold(), Line::from(failure.to_string()).red()])
}

fn head(status: &Status) -> Line<'static> {
    let state = if status.waits.is_empty() { "ready".green() } else { "not ready".yellow() };
    let mut spans = vec![format!("bifold at {}  ", status.url).bold(), state];
    spans.push(format!("  {}", bytes(status.memory_bytes)).into());
    if let Some(cores) = status.cores {
        spans.push(format!("  {cores:.1} cores").into());
    }
    Line::from(spans)
}

/// A source: a line of figures, one of the open epoch, and its partitions.
pub(crate) fn source_lines(source: &Source) -> Vec<Line<'static>> {
    let figure = |value: Option<f64>| value.map_or("–".to_string(), |value| count(value as u64));
    let mut lines = vec![Line::from(vec![
        format!("{}  ", source.name).bold(),
        format!(
            "{} events/s  lag: speed {}, collect {}  fresh: {}  dead letters {}",
            figure(source.events_per_second),
            figure(source.lag_speed),
            figure(source.lag_collect),
            source.freshness_seconds.map_or("–".to_string(), |seconds| format!("{seconds:.1} s")),
            count(source.dead_letters),
        )
        .into(),
    ])];
    if let Some(events) = source.epoch_events {
        lines.push(Line::from(format!(
            "  open epoch: {} events, {}, {} slices; {} committed",
            count(events as u64),
            bytes(source.epoch_bytes.unwrap_or(0.0)),
            figure(source.epoch_slices),
            figure(source.epochs),
        )));
    }
    lines.extend(source.partitions.iter().map(partition_line));
    lines
}

fn partition_line(part: &Partition) -> Line<'static> {
    let [batch_cells, speed_cells, lag_cells] = cells(part);
    let name = format!("{}/{}", part.topic, part.partition);
    Line::from(vec![
        Span::raw(format!("  {name:<20} ")),
        Span::styled("█".repeat(batch_cells), batch()),
        Span::styled("▓".repeat(speed_cells), speed()),
        Span::styled("░".repeat(lag_cells), lag()),
        Span::raw(" ".repeat(CELLS - batch_cells - speed_cells - lag_cells)),
        Span::raw(format!(" batch [{},{}) + speed [{},{})", part.origin, part.batch, part.batch, part.speed)),
    ])
}

/// How many cells of the bar each part gets: in proportion, and at least one if it is not empty.
fn cells(part: &Partition) -> [usize; 3] {
    let sizes =
        [part.batch - part.origin, part.speed - part.batch, part.log_end - part.speed].map(|size| size.max(0) as f64);
    let all: f64 = sizes.iter().sum();
    if all == 0.0 {
        return [0; 3];
    }
    let mut cells =
        sizes.map(|size| if size > 0.0 { ((size / all * CELLS as f64).round() as usize).max(1) } else { 0 });
    // What rounding gave too much or too little, the largest part bears.
    let largest = (0..3).max_by_key(|&i| cells[i]).unwrap_or(0);
    let others: usize = cells.iter().sum::<usize>() - cells[largest];
    cells[largest] = CELLS - others;
    cells
}

fn view_lines(views: &[View], width: usize) -> Vec<Line<'static>> {
    let longest = views.iter().map(|view| view.name.chars().count()).max().unwrap_or(0).clamp(4, 40.min(width.max(5)));
    let head = format!("{:<longest$}  {:<9} {:>12} {:>10}  batch view", "view", "state", "groups", "size");
    let mut lines = vec![Line::from(head).bold()];
    for view in views {
        let age = view.batch_age_seconds.map_or(String::new(), |age| format!("{} ago", seconds(age)));
        let state = match view.state.as_str() {
            "building" => format!("{:>3.0} %", view.progress * 100.0),
            state => state.to_string(),
        };
        let row = format!(
            "{:<longest$}  {state:<9} {:>12} {:>10}  {age}",
            view.name,
            count(view.groups),
            bytes(view.bytes as f64)
        );
        lines.push(if view.state == "ready" { Line::from(row) } else { Line::from(row).yellow() });
    }
    lines
}

fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

fn bytes(number: f64) -> String {
    ByteSize(number as u64).display().iec().to_string()
}

fn seconds(number: f64) -> String {
    match number {
        n if n < 120.0 => format!("{n:.0} s"),
        n if n < 7_200.0 => format!("{:.0} min", n / 60.0),
        n => format!("{:.0} h", n / 3_600.0),
    }
}

fn batch() -> Style {
    Style::new().fg(Color::Blue)
}

fn speed() -> Style {
    Style::new().fg(Color::Cyan)
}

fn lag() -> Style {
    Style::new().fg(Color::DarkGray)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(origin: i64, batch: i64, speed: i64, log_end: i64) -> Partition {
        Partition { topic: "t".to_string(), partition: 0, origin, batch, speed, log_end }
    }

    #[test]
    fn a_bar_is_full_and_shows_every_part_that_is_not_empty() {
        assert_eq!(cells(&part(0, 0, 0, 0)), [0, 0, 0]);
        assert_eq!(cells(&part(0, 10, 20, 20)), [16, 16, 0]);
        assert_eq!(cells(&part(7, 1_000_000, 1_000_001, 1_000_002)), [30, 1, 1]);
        for (batch, speed, end) in [(0, 1, 3), (5, 7, 11), (1, 100, 101), (99, 100, 100)] {
            assert_eq!(cells(&part(0, batch, speed, end)).iter().sum::<usize>(), CELLS);
        }
    }

    #[test]
    fn a_source_says_what_is_in_which_layer() {
        let source = Source {
            name: "shop".to_string(),
            lag_speed: Some(1234.0),
            partitions: vec![part(0, 8, 16, 16)],
            ..Source::default()
        };
        let text = source_lines(&source).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains("lag: speed 1,234, collect –"), "{text}");
        assert!(text.contains("batch [0,8) + speed [8,16)"), "{text}");
    }
}
