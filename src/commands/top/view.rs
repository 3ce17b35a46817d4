//! The live view of `top`, with its keys.

use std::fmt::Display;
use std::mem;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use super::sample::{RECEIVE_INTERVAL, Sampler};
use super::table::{NewByEndpoint, Rates, Selection, ServiceRow, SortOrder};

/// The rates on the screen, and how they are shown.
#[derive(Debug)]
pub(super) struct View {
    /// The rates of the last interval.
    rates: Rates,
    /// The rows to show, and their order.
    selection: Selection,
    /// Whether endpoints are shown.
    endpoints: bool,
    /// The position of the scrolled table.
    scroll: TableState,
}

/// The command of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyCommand {
    /// Quits the view.
    Quit,
    /// Changes the order of the rows.
    Order(SortOrder),
    /// Shows or hides endpoints.
    ToggleEndpoints,
    /// Scrolls down by one row.
    Down,
    /// Scrolls up by one row.
    Up,
}

/// The keys and their commands.
const KEYS: [(KeyCode, KeyCommand); 10] = [
    (KeyCode::Char('q'), KeyCommand::Quit),
    (KeyCode::Esc, KeyCommand::Quit),
    (KeyCode::Char('s'), KeyCommand::Order(SortOrder::Service)),
    (KeyCode::Char('r'), KeyCommand::Order(SortOrder::Rate)),
    (KeyCode::Char('t'), KeyCommand::Order(SortOrder::Total)),
    (KeyCode::Char('e'), KeyCommand::ToggleEndpoints),
    (KeyCode::Down, KeyCommand::Down),
    (KeyCode::Char('j'), KeyCommand::Down),
    (KeyCode::Up, KeyCommand::Up),
    (KeyCode::Char('k'), KeyCommand::Up),
];

/// Returns the command of a key. `control` is whether the control key is held.
fn command(code: KeyCode, control: bool) -> Option<KeyCommand> {
    if control {
        return (code == KeyCode::Char('c')).then_some(KeyCommand::Quit);
    }
    let mut keys = KEYS.into_iter();
    keys.find(|(key, _)| *key == code)
        .map(|(_, command)| command)
}

impl View {
    /// Creates an empty view that shows endpoints.
    pub(super) fn new(selection: Selection) -> Self {
        Self {
            rates: Rates::default(),
            selection,
            endpoints: true,
            scroll: TableState::default(),
        }
    }

    /// Shows new rates each `interval`, until the user quits.
    pub(super) fn run(
        mut self,
        terminal: &mut DefaultTerminal,
        sampler: &mut Sampler,
        interval: Duration,
    ) -> anyhow::Result<()> {
        let mut before = sampler.counters()?;
        let mut received = NewByEndpoint::default();
        let mut start = Instant::now();
        // Discards connections that began before the first interval.
        sampler.receive(&before, &mut NewByEndpoint::default())?;
        loop {
            terminal.draw(|frame| self.draw(frame))?;
            let has_input = loop {
                let left = interval.saturating_sub(start.elapsed());
                let has_input = event::poll(left.min(RECEIVE_INTERVAL))?;
                sampler.receive(&before, &mut received)?;
                if has_input || left.is_zero() {
                    break has_input;
                }
            };
            if has_input {
                if let Event::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match command(key.code, control) {
                        Some(KeyCommand::Quit) => return Ok(()),
                        Some(command) => self.execute(command),
                        None => {}
                    }
                }
                continue;
            }
            let after = sampler.counters()?;
            sampler.receive(&after, &mut received)?;
            let seconds = start.elapsed().as_secs_f64();
            start = Instant::now();
            self.rates = Rates::new(&before, &after, &mem::take(&mut received), seconds);
            self.rates.select(&self.selection);
            before = after;
        }
    }

    /// Executes a command. The caller handles [`KeyCommand::Quit`].
    fn execute(&mut self, command: KeyCommand) {
        match command {
            KeyCommand::Quit => {}
            KeyCommand::Order(order) => {
                self.selection.order = order;
                self.rates.sort(order);
            }
            KeyCommand::ToggleEndpoints => self.endpoints = !self.endpoints,
            KeyCommand::Down => self.scroll.scroll_down_by(1),
            KeyCommand::Up => self.scroll.scroll_up_by(1),
        }
    }

    /// Draws the table, and the line with the keys.
    fn draw(&mut self, frame: &mut Frame<'_>) {
        let layout = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]);
        let [table, help] = layout.areas(frame.area());
        let header = [
            Cell::from("SERVICE"),
            number("NEW/S", RATE),
            number("CONNECTIONS", TOTAL),
        ];
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let rows = self
            .rates
            .services
            .iter()
            .flat_map(|row| rows(row, self.endpoints));
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(10),
            Constraint::Length(14),
        ];
        let shown = Table::new(rows, widths)
            .header(TableRow::new(header).style(bold))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(shown, table, &mut self.scroll);
        let lost = if self.rates.events_lost {
            "  conntrack events were lost"
        } else {
            ""
        };
        let keys = format!("q quit  sort: r rate, t total, s service  e endpoints{lost}");
        frame.render_widget(Paragraph::new(Line::from(keys)).style(bold), help);
    }
}

/// The width of the column of rates.
const RATE: usize = 9;

/// The width of the column of connections.
const TOTAL: usize = 13;

/// Creates a right-aligned cell.
fn number(number: impl Display, columns: usize) -> Cell<'static> {
    Cell::from(format!("{:>columns$}", number.to_string()))
}

/// Creates the rows of a Service port, with its endpoints if `endpoints` is set.
fn rows(row: &ServiceRow, endpoints: bool) -> Vec<TableRow<'static>> {
    let rate = |rate: f64| number(format!("{rate:.1}"), RATE);
    let mut rows = vec![TableRow::new([
        Cell::from(row.service.clone()),
        rate(row.connections_per_second),
        number(row.connections, TOTAL),
    ])];
    rows.extend(row.denied.iter().map(|row| {
        TableRow::new([
            Cell::from(format!("  {}", row.description)),
            rate(row.connections_per_second),
            number(row.connections, TOTAL),
        ])
    }));
    if endpoints {
        rows.extend(row.endpoints.iter().map(|row| {
            TableRow::new([
                Cell::from(format!("  {}", row.endpoint)),
                rate(row.connections_per_second),
                number(format!("{:.0} %", row.share * 100.0), TOTAL),
            ])
        }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::commands::top::table::EndpointRow;

    fn row(service: &str, rate: f64, connections: u64) -> ServiceRow {
        ServiceRow {
            service: service.to_owned(),
            connections_per_second: rate,
            connections,
            denied: Vec::new(),
            endpoints: vec![EndpointRow {
                endpoint: "10.244.1.9:8080".to_owned(),
                connections_per_second: rate,
                share: 1.0,
            }],
        }
    }

    fn screen(view: &mut View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(56, 7)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(56);
        lines
            .map(|line| {
                line.iter()
                    .map(ratatui::buffer::Cell::symbol)
                    .collect::<String>()
            })
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn keys_change_the_order_and_toggle_endpoints() {
        let mut view = View::new(Selection::default());
        view.rates.services = vec![row("shop/cart", 2.5, 900), row("shop/till", 7.0, 10)];
        view.execute(KeyCommand::Order(SortOrder::Rate));
        let shown = screen(&mut view);
        assert_eq!(
            shown[0],
            "SERVICE                            NEW/S    CONNECTIONS"
        );
        assert_eq!(
            shown[1],
            "shop/till                            7.0             10"
        );
        assert_eq!(
            shown[2],
            "  10.244.1.9:8080                    7.0          100 %"
        );
        assert!(shown[3].starts_with("shop/cart"), "{shown:#?}");
        view.execute(KeyCommand::Order(SortOrder::Total));
        assert!(screen(&mut view)[1].starts_with("shop/cart"));
        view.execute(KeyCommand::ToggleEndpoints);
        assert!(screen(&mut view)[2].starts_with("shop/till"));
    }

    #[test]
    fn each_key_has_its_command() {
        assert_eq!(command(KeyCode::Char('q'), false), Some(KeyCommand::Quit));
        assert_eq!(command(KeyCode::Char('c'), true), Some(KeyCommand::Quit));
        assert_eq!(command(KeyCode::Char('c'), false), None);
        assert_eq!(
            command(KeyCode::Char('e'), false),
            Some(KeyCommand::ToggleEndpoints)
        );
    }
}
