//! The live view.

use std::fmt::Display;
use std::mem;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use super::sample::{HEARING, HeardConnections, Sampler};
use super::table::{Rates, ServiceRow, SortOrder};

/// What is shown, and how.
#[derive(Debug)]
pub(super) struct View {
    rates: Rates,
    order: SortOrder,
    endpoints: bool,
    scroll: TableState,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyCommand {
    Leave,
    Order(SortOrder),
    Endpoints,
    Down,
    Up,
}

const KEYS: [(KeyCode, KeyCommand); 10] = [
    (KeyCode::Char('q'), KeyCommand::Leave),
    (KeyCode::Esc, KeyCommand::Leave),
    (KeyCode::Char('s'), KeyCommand::Order(SortOrder::Service)),
    (KeyCode::Char('r'), KeyCommand::Order(SortOrder::Rate)),
    (KeyCode::Char('t'), KeyCommand::Order(SortOrder::Total)),
    (KeyCode::Char('e'), KeyCommand::Endpoints),
    (KeyCode::Down, KeyCommand::Down),
    (KeyCode::Char('j'), KeyCommand::Down),
    (KeyCode::Up, KeyCommand::Up),
    (KeyCode::Char('k'), KeyCommand::Up),
];

fn asked(code: KeyCode, control: bool) -> Option<KeyCommand> {
    if control {
        return (code == KeyCode::Char('c')).then_some(KeyCommand::Leave);
    }
    let mut keys = KEYS.into_iter();
    keys.find(|(key, _)| *key == code).map(|(_, asked)| asked)
}

impl View {
    pub(super) fn new(order: SortOrder) -> Self {
        Self {
            rates: Rates::default(),
            order,
            endpoints: true,
            scroll: TableState::default(),
        }
    }

    /// Shows new rates each `interval` until somebody leaves.
    pub(super) fn run(
        mut self,
        terminal: &mut DefaultTerminal,
        sampler: &mut Sampler,
        interval: Duration,
    ) -> anyhow::Result<()> {
        let mut before = sampler.counters()?;
        let mut heard = HeardConnections::default();
        let mut since = Instant::now();
        // What began before is of no interval.
        sampler.hear(&before, &mut HeardConnections::default())?;
        loop {
            terminal.draw(|frame| self.draw(frame))?;
            let happened = loop {
                let left = interval.saturating_sub(since.elapsed());
                let happened = event::poll(left.min(HEARING))?;
                sampler.hear(&before, &mut heard)?;
                if happened || left.is_zero() {
                    break happened;
                }
            };
            if happened {
                if let Event::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match asked(key.code, control) {
                        Some(KeyCommand::Leave) => return Ok(()),
                        Some(asked) => self.take(asked),
                        None => {}
                    }
                }
                continue;
            }
            let after = sampler.counters()?;
            sampler.hear(&after, &mut heard)?;
            let heard = mem::take(&mut heard);
            let seconds = since.elapsed().as_secs_f64();
            since = Instant::now();
            self.rates = Rates::new(&before, &after, &heard.to, heard.missed, seconds);
            self.rates.sort(self.order);
            before = after;
        }
    }

    fn take(&mut self, asked: KeyCommand) {
        match asked {
            KeyCommand::Leave => {}
            KeyCommand::Order(order) => {
                self.order = order;
                self.rates.sort(order);
            }
            KeyCommand::Endpoints => self.endpoints = !self.endpoints,
            KeyCommand::Down => self.scroll.scroll_down_by(1),
            KeyCommand::Up => self.scroll.scroll_up_by(1),
        }
    }

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
        let missed = if self.rates.missed {
            "  too many connections to hear of each"
        } else {
            ""
        };
        let keys = format!("q leave  sort: r rate, t total, s service  e endpoints{missed}");
        frame.render_widget(Paragraph::new(Line::from(keys)).style(bold), help);
    }
}

/// Columns of numbers.
const RATE: usize = 9;
const TOTAL: usize = 13;

fn number(number: impl Display, columns: usize) -> Cell<'static> {
    Cell::from(format!("{:>columns$}", number.to_string()))
}

fn rows(row: &ServiceRow, endpoints: bool) -> Vec<TableRow<'static>> {
    let rate = |rate: f64| number(format!("{rate:.1}"), RATE);
    let mut rows = vec![TableRow::new([
        Cell::from(row.service.clone()),
        rate(row.connections_per_second),
        number(row.connections, TOTAL),
    ])];
    if endpoints {
        rows.extend(row.endpoints.iter().map(|row| {
            TableRow::new([
                Cell::from(format!("  {}", row.endpoint)),
                rate(row.connections_per_second),
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
            endpoints: vec![EndpointRow {
                endpoint: "10.244.1.9:8080".to_owned(),
                connections_per_second: rate,
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
    fn it_is_sorted_as_asked() {
        let mut view = View::new(SortOrder::Rate);
        view.rates.services = vec![row("shop/cart", 2.5, 900), row("shop/till", 7.0, 10)];
        view.take(KeyCommand::Order(SortOrder::Rate));
        let shown = screen(&mut view);
        assert_eq!(
            shown[0],
            "SERVICE                            NEW/S    CONNECTIONS"
        );
        assert_eq!(
            shown[1],
            "shop/till                            7.0             10"
        );
        assert_eq!(shown[2], "  10.244.1.9:8080                    7.0");
        assert!(shown[3].starts_with("shop/cart"), "{shown:#?}");
        view.take(KeyCommand::Order(SortOrder::Total));
        assert!(screen(&mut view)[1].starts_with("shop/cart"));
        view.take(KeyCommand::Endpoints);
        assert!(screen(&mut view)[2].starts_with("shop/till"));
    }

    #[test]
    fn keys() {
        assert_eq!(asked(KeyCode::Char('q'), false), Some(KeyCommand::Leave));
        assert_eq!(asked(KeyCode::Char('c'), true), Some(KeyCommand::Leave));
        assert_eq!(asked(KeyCode::Char('c'), false), None);
        assert_eq!(
            asked(KeyCode::Char('e'), false),
            Some(KeyCommand::Endpoints)
        );
    }
}
